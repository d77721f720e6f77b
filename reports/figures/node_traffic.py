"""Copies of tokens from node to node, before and after."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, change, sentence_case

Matrix = Sequence[Sequence[float]]


def drawable(placement: Json) -> bool:
    """Whether there is a second node."""
    return bool(placement["nodes"] > 1)


def draw(placement: Json) -> go.Figure:
    """Two matrices side by side, in copies per token of the source node; the diagonal stays at home."""
    shown = placement["statistics"]
    drawn = theme.figure("Traffic between nodes", "to node", "from node", 420)
    tables = {key: _per_token(shown["node_traffic"][key], shown["tokens"]) for key in ("before", "after")}
    top = max(value for table in tables.values() for row in table for value in row)
    names = {"before": sentence_case(shown["before"]), "after": "This placement"}
    for number, (key, table) in enumerate(tables.items(), start=1):
        nodes = [str(node) for node in range(len(table))]
        drawn.add_heatmap(
            z=table, x=nodes, y=nodes, xaxis=f"x{number}", yaxis=f"y{number}", name=theme.plain(names[key]),
            zmin=0.0, zmax=top, showscale=number == 2, xgap=1, ygap=1,
            colorscale=[[0, theme.colour("grid")], [1, theme.colour("blue")]],
            colorbar={"title": {"text": "copies", "side": "right"}, "thickness": 12, "outlinewidth": 0},
            hovertemplate=f"{theme.plain(names[key])}<br>node %{{y}} to %{{x}}: %{{z:.3f}} copies a token"
                          "<extra></extra>",
        )  # fmt: skip
    axis = {"type": "category", "showgrid": False, "nticks": 9}
    titles = [{"text": f"to node<br>{theme.plain(name)}"} for name in names.values()]
    drawn.update_layout(
        xaxis={**axis, "domain": [0.0, 0.47], "title": titles[0]},
        xaxis2={**axis, "domain": [0.53, 1.0], "anchor": "y2", "title": titles[1]},
        yaxis={**axis, "autorange": "reversed"},
        yaxis2={**axis, "anchor": "x2", "autorange": "reversed", "showticklabels": False},
    )
    return drawn


def read(placement: Json) -> str:
    """Copies between nodes for each token, before and after."""
    shown = placement["statistics"]
    before, after = (_remote(shown["node_traffic"][key]) / shown["tokens"] for key in ("before", "after"))
    less = f" ({change(after / before - 1)})" if before else ""
    return f"A token is sent to {after:.2f} other nodes; with {shown['before']} it is {before:.2f}{less}."


def _per_token(table: Matrix, tokens: int) -> list[list[float]]:
    """Copies a token, each node having an equal part of the tokens."""
    return [[value * len(table) / tokens for value in row] for row in table]


def _remote(table: Matrix) -> float:
    return sum(value for source, row in enumerate(table) for target, value in enumerate(row) if source != target)
