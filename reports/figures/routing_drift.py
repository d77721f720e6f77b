"""Whether the router changes along the trace: drift of each layer's loads beside what chance does."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, percent


def draw(placement: Json) -> go.Figure:
    """Share of tokens that other experts get in the second half of the trace, and in halves by chance."""
    layers = placement["statistics"]["layers"]
    drawn = theme.figure("Drift of the router", "layer", "share of tokens that moved (%)", 360)
    names = [str(row["layer"]) for row in layers]
    told = [[percent(row["drift"]), percent(row["chance"]), f"{row['largest']:.1f}", f"{row['cv']:.2f}"]
            for row in layers]  # fmt: skip
    drawn.add_bar(
        name="First half against second", x=names, y=[100 * row["drift"] for row in layers],
        marker_color=theme.colour("blue"), customdata=told,
        hovertemplate="layer %{x}: %{customdata[0]}<br>largest load %{customdata[2]} times the mean, "
                      "spread %{customdata[3]}<extra></extra>",
    )  # fmt: skip
    drawn.add_scatter(
        name="Halves by chance", x=names, y=[100 * row["chance"] for row in layers], mode="markers",
        marker={"color": theme.colour("orange"), "size": 8, "symbol": "diamond"}, customdata=told,
        hovertemplate="layer %{x}: %{customdata[1]} by chance<extra></extra>",
    )  # fmt: skip
    drawn.update_xaxes(type="category", tickangle=0, nticks=16)
    drawn.update_yaxes(rangemode="tozero")
    return drawn


def read(placement: Json) -> str:
    """Mean drift against chance, and what that means for a placement."""
    layers = placement["statistics"]["layers"]
    moved, chance = (sum(row[key] for row in layers) / len(layers) for key in ("drift", "chance"))
    told = f"Between the halves of the trace {percent(moved)} of the tokens change experts, {percent(chance)} by chance"
    if moved > 1.5 * chance:
        return f"{told}: the router drifts, so a placement ages."
    return f"{told}: the trace shows no drift."
