"""Cost to train against GPUs."""

from __future__ import annotations

import plotly.graph_objects as go

from reports.figures.scaling import Merit, against_gpus, feasible
from reports.words import Json, dollars

MERIT = Merit(
    title="Cost to train",
    axis="cost to train (USD)",
    value=lambda point: float(point["cost_usd"]),
    words=lambda point: dollars(point["cost_usd"]),
)


def draw(capacity: Json) -> go.Figure:
    """Cost to train over GPUs."""
    return against_gpus(capacity, MERIT).update_yaxes(tickprefix="$", selector={"overlaying": None})


def read(capacity: Json) -> str:
    """The cheapest size of all clusters."""
    points = [(line["cluster"], point) for line in capacity["series"] for point in feasible(line)]
    if not points:
        return "No size fits on any cluster."
    cluster, point = min(points, key=lambda pair: float(pair[1]["cost_usd"]))
    return f"The cheapest training costs {dollars(point['cost_usd'])}: {point['gpus']:,} GPUs of {cluster}."
