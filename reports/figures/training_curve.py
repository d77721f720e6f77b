"""The loss of every step of a training and of every evaluation, and where it came back to."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json


def draw(training: Json) -> go.Figure:
    """Training loss as a line, validation loss as dots on a line, the best evaluation a star."""
    drawn = theme.figure("Loss over the training", "optimizer step", "loss (nats)", 400)
    curve, evaluations = training["curve"], _evaluations(training)
    drawn.add_scatter(
        name="Training", mode="lines", x=[row["step"] for row in curve], y=[row["loss"] for row in curve],
        line={"color": theme.colour("grey"), "width": 1.5},
        hovertemplate="step %{x}: training loss %{y:.4f}<extra></extra>",
    )  # fmt: skip
    if evaluations:
        drawn.add_scatter(
            name="Validation", mode="lines+markers", x=[row["step"] for row in evaluations],
            y=[row["loss"] for row in evaluations], line={"color": theme.colour("blue"), "width": 2},
            hovertemplate="step %{x}: validation loss %{y:.4f}<extra></extra>",
        )  # fmt: skip
    best = _best(training)
    if best:
        drawn.add_scatter(
            name="Kept", mode="markers", x=[best["step"]], y=[best["loss"]],
            marker={"color": theme.colour("orange"), "size": 16, "symbol": "star"},
            hovertemplate="kept: step %{x}, validation loss %{y:.4f}<extra></extra>",
        )  # fmt: skip
    return drawn


def read(training: Json) -> str:
    """First and last loss, and what early stopping kept."""
    first, last, best = training["curve"][0], training["curve"][-1], _best(training)
    text = f"The training loss goes from {first['loss']:.3f} to {last['loss']:.3f} in {last['step']:,} steps"
    if best:
        return f"{text}; the weights of step {best['step']:,} are kept, with a validation loss of {best['loss']:.3f}."
    return f"{text}."


def _evaluations(training: Json) -> list[Json]:
    return [row for row in training["evaluations"] if "loss" in row]


def _best(training: Json) -> Json | None:
    """The evaluation that early stopping kept, where its loss was told."""
    if not training.get("best"):
        return None
    return next((row for row in _evaluations(training) if row["step"] == training["best"]["step"]), None)
