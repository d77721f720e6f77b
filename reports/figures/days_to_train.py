"""Time to train against GPUs."""

from __future__ import annotations

import plotly.graph_objects as go

from reports.figures.scaling import Merit, against_gpus, compare
from reports.words import Json, days

MERIT = Merit(
    title="Time to train",
    axis="time to train (days)",
    value=lambda point: float(point["days"]),
    words=lambda point: days(point["days"]),
    tick=lambda value: f"{value:,g}",
)


def draw(capacity: Json) -> go.Figure:
    """Days to train over GPUs."""
    return against_gpus(capacity, MERIT)


def read(capacity: Json) -> str:
    """The clusters side by side."""
    return compare(capacity, MERIT)
