"""What the placement moves against the one in force: experts fetched from node to node."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json


def drawable(placement: Json) -> bool:
    """Whether there was a placement in force."""
    return bool(placement["statistics"]["migration"])


def draw(placement: Json) -> go.Figure:
    """A matrix of fetches of one layer; the diagonal are fetches from a neighbour on the node."""
    table = placement["statistics"]["migration"]
    nodes = [str(node) for node in range(len(table))]
    drawn = theme.figure("Experts that move", "to node", "from node", 420)
    drawn.add_heatmap(
        z=table, x=nodes, y=nodes, xgap=1, ygap=1, zmin=0, zmax=max(1, *(value for row in table for value in row)),
        colorscale=[[0, theme.colour("grid")], [1, theme.colour("purple")]],
        colorbar={"title": {"text": "experts", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="node %{y} to %{x}: %{z} experts<extra></extra>",
    )  # fmt: skip
    axis = {"type": "category", "showgrid": False, "nticks": 17}
    drawn.update_layout(xaxis=axis, yaxis={**axis, "autorange": "reversed"})
    return drawn


def read(placement: Json) -> str:
    """Moves of all layers, and those between nodes."""
    layers = placement["layers"]
    moved, between = (sum(layer[key] for layer in layers) for key in ("moved", "moved_between_nodes"))
    slots = placement["slots"] * len(layers)
    return f"Of {slots:,} slots in {len(layers)} layers {moved:,} change hands, {between:,} of them between nodes."
