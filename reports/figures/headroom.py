"""Memory headroom against GPUs."""

from __future__ import annotations

import plotly.graph_objects as go

from reports.figures.scaling import Merit, against_gpus, compare
from reports.words import GIB, Json, memory

MERIT = Merit(
    title="Memory headroom",
    axis="memory left per GPU (GiB)",
    value=lambda point: float(point["memory_headroom"]) / GIB,
    words=lambda point: f"{memory(point['memory_headroom'])} left",
)


def draw(capacity: Json) -> go.Figure:
    """Memory left per GPU of the chosen plan over GPUs."""
    return against_gpus(capacity, MERIT)


def read(capacity: Json) -> str:
    """The clusters side by side."""
    return compare(capacity, MERIT)
