"""Compressed models beside the first of a table: how good each is against the bytes it is stored in."""

from __future__ import annotations

from typing import Final

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, percent, seconds

AXES: Final = {"accuracy": "accuracy on held-out data (%)", "perplexity": "perplexity on held-out data"}


def draw(table: Json) -> go.Figure:
    """A mark for each model: stored bytes across, metric up; latency on hover."""
    metric = table["metric"]
    drawn = theme.figure("Before and after", "stored weights (kB)", AXES[metric], height=420)
    for index, row in enumerate(table["rows"]):
        drawn.add_scatter(
            name=theme.plain(row["name"]), mode="markers", x=[row["stored_bytes"] / 1e3], y=[_value(row, metric)],
            marker={"symbol": theme.SYMBOLS[index % len(theme.SYMBOLS)], "size": 13, "color": theme.series(index)},
            customdata=[[theme.plain(row["form"]), told(row, metric), seconds(row["latency"]["seconds"])]],
            hovertemplate="%{fullData.name} (%{customdata[0]}): %{customdata[1]}, %{x:,.1f} kB, "
            "a batch %{customdata[2]}<extra></extra>",
        )  # fmt: skip
    drawn.update_xaxes(rangemode="tozero")
    return drawn


def read(table: Json) -> str:
    """The smallest model against the first."""
    first, metric = table["rows"][0], table["metric"]
    small = min(table["rows"], key=lambda row: row["stored_bytes"])
    times = first["stored_bytes"] / small["stored_bytes"]
    return (
        f"The smallest, {small['name']}, is {times:.1f} times smaller than {first['name']}: {metric} "
        f"{told(small, metric)} against {told(first, metric)}."
    )


def told(row: Json, metric: str) -> str:
    """The metric for people."""
    value = row["scores"][metric]
    return percent(value) if metric == "accuracy" else f"{value:.2f}"


def _value(row: Json, metric: str) -> float:
    value: float = row["scores"][metric]
    return 100.0 * value if metric == "accuracy" else value
