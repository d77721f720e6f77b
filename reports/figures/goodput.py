"""Goodput against GPUs: the share of wall time that trains, after failures, restarts and checkpoints."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from reports.figures.scaling import Merit, against_gpus, compare, feasible
from reports.words import Json, percent

MERIT = Merit(
    title="Goodput",
    axis="goodput (% of wall time)",
    value=lambda point: 100 * float(point.get("goodput", math.nan)),
    words=lambda point: percent(point["goodput"]),
)


def known(capacity: Json) -> bool:
    """Whether any point states its goodput."""
    return any(feasible(line, MERIT) for line in capacity["series"])


def draw(capacity: Json) -> go.Figure:
    """Goodput over GPUs, of the points that state it."""
    return against_gpus(capacity, MERIT)


def read(capacity: Json) -> str:
    """The clusters side by side."""
    return compare(capacity, MERIT)
