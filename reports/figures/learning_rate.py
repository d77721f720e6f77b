"""The learning rate and the gradient norm of every step of a training."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json


def draw(training: Json) -> go.Figure:
    """The learning rate as a line on the left axis, the norm before clipping on the right one."""
    drawn = theme.figure("Learning rate and gradient norm", "optimizer step", "learning rate", 320)
    curve = training["curve"]
    steps = [row["step"] for row in curve]
    drawn.add_scatter(
        name="Gradient norm", mode="lines", x=steps, y=[row["gradient_norm"] for row in curve], yaxis="y2",
        line={"color": theme.colour("grey"), "width": 1},
        hovertemplate="step %{x}: gradient norm %{y:.3g}<extra></extra>",
    )  # fmt: skip
    drawn.add_scatter(
        name="Learning rate", mode="lines", x=steps, y=[row["learning_rate"] for row in curve],
        line={"color": theme.colour("blue"), "width": 2},
        hovertemplate="step %{x}: learning rate %{y:.3g}<extra></extra>",
    )  # fmt: skip
    drawn.update_layout(
        yaxis={"rangemode": "tozero"},
        yaxis2={"title": {"text": "gradient norm before clipping"}, "overlaying": "y", "side": "right",
                "showgrid": False, "rangemode": "tozero"},
    )  # fmt: skip
    return drawn


def read(training: Json) -> str:
    """The peak and the end of the rate, and the largest norm."""
    curve = training["curve"]
    peak = max(curve, key=lambda row: float(row["learning_rate"]))
    norm = max(curve, key=lambda row: float(row["gradient_norm"]))
    return (
        f"The rate is highest in step {peak['step']:,} with {peak['learning_rate']:.2g} and ends at "
        f"{curve[-1]['learning_rate']:.2g}; the largest gradient norm is {norm['gradient_norm']:.2g}, in step "
        f"{norm['step']:,}."
    )
