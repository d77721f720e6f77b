"""Which experts serve the same tokens, in the order in which they stand on the nodes."""

from __future__ import annotations

from itertools import pairwise

import plotly.graph_objects as go

from reports import theme
from reports.words import Json

TOP = 4.0  # times chance; what is above has the same colour


def drawable(placement: Json) -> bool:
    """Whether any two experts served one token."""
    return any(any(row) for row in placement["statistics"]["coactivation"]["lift"])


def draw(placement: Json) -> go.Figure:
    """Lift of each pair; lines part the nodes."""
    shown = placement["statistics"]["coactivation"]
    names = [f"expert {expert}" for expert in shown["experts"]]
    drawn = theme.figure("Experts that serve the same tokens", "expert, by node", "expert, by node", 560)
    drawn.add_heatmap(
        z=shown["lift"], x=names, y=names, zmin=0.0, zmax=TOP,
        colorscale=[[0, theme.colour("surface")], [0.25, theme.colour("grid")], [1, theme.colour("blue")]],
        colorbar={"title": {"text": "times chance", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="%{x} and %{y}: %{z:.2f} times chance<extra></extra>",
    )  # fmt: skip
    cuts = [place - 0.5 for place, (one, other) in enumerate(pairwise(shown["node"]), start=1) if one != other]
    line = {"color": theme.colour("orange"), "width": 1}
    for cut in cuts:
        drawn.add_hline(y=cut, line=line)
        drawn.add_vline(x=cut, line=line)
    ends = [-0.5, *cuts, len(names) - 0.5]
    middle = [names[int((first + last) / 2)] for first, last in pairwise(ends)]
    labels = [f"node {node}" for node in dict.fromkeys(shown["node"])]
    axis = {"type": "category", "tickvals": middle, "ticktext": labels, "showgrid": False}
    drawn.update_xaxes(**axis, range=[-0.5, len(names) - 0.5], tickangle=-45)
    drawn.update_yaxes(**axis, range=[len(names) - 0.5, -0.5])
    return drawn


def read(placement: Json) -> str:
    """Mean lift of pairs on one node and on two."""
    shown = placement["statistics"]["coactivation"]
    node, lift = shown["node"], shown["lift"]
    if len(set(node)) == 1:
        return f"All {len(node)} experts stand on one node."
    pairs = [(node[a] == node[b], lift[a][b]) for a in range(len(node)) for b in range(len(node)) if a != b]
    near, far = (_mean([value for same, value in pairs if same is kind]) for kind in (True, False))
    return (
        f"Two experts on one node serve the same token {near:.2f} times as often as by chance, "
        f"two on different nodes {far:.2f} times."
    )


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)
