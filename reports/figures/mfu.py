"""MFU against GPUs."""

from __future__ import annotations

import plotly.graph_objects as go

from reports.figures.scaling import Merit, against_gpus, compare
from reports.words import Json, percent

MERIT = Merit(
    title="Model FLOP utilisation",
    axis="MFU (% of dense peak)",
    value=lambda point: 100 * float(point["mfu"]),
    words=lambda point: percent(point["mfu"]),
)


def draw(capacity: Json) -> go.Figure:
    """MFU over GPUs."""
    return against_gpus(capacity, MERIT)


def read(capacity: Json) -> str:
    """The clusters side by side."""
    return compare(capacity, MERIT)
