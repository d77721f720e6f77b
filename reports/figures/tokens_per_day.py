"""Tokens per day against GPUs."""

from __future__ import annotations

import plotly.graph_objects as go

from reports.figures.scaling import Merit, against_gpus, compare
from reports.words import Json, count

MERIT = Merit(
    title="Tokens per day",
    axis="tokens per day",
    value=lambda point: float(point["tokens_per_day"]),
    words=lambda point: f"{count(point['tokens_per_day'])} tokens a day",
    tick=lambda value: count(value).replace(".0", ""),
)


def draw(capacity: Json) -> go.Figure:
    """Tokens per day over GPUs."""
    return against_gpus(capacity, MERIT)


def read(capacity: Json) -> str:
    """The clusters side by side."""
    return compare(capacity, MERIT)
