"""From the peak of the GPU to what the training achieves: each loss by name."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import TERA, Json, flops_rate, percent, sentence_case


def draw(plan: Json) -> go.Figure:
    """Horizontal waterfall of `waterfall`: a loss row spans from what is left after it to what was there before."""
    steps = plan["waterfall"]
    losses, ends = steps[1:-1], (steps[0], steps[-1])
    drawn = theme.figure("From peak to achieved", "rate per GPU (TFLOP/s)", "")
    peak = steps[0]["value"]
    drawn.add_bar(
        name="Rate", orientation="h", marker_color=theme.colour("blue"), x=[row["value"] / TERA for row in ends],
        y=[0, len(steps) - 1], customdata=[[theme.plain(r["name"]), _value(r["value"], peak)] for r in ends],
        hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
    )  # fmt: skip
    left = _left(steps)
    drawn.add_bar(
        name="Lost", orientation="h", marker_color=theme.colour("orange"), x=[row["loss"] / TERA for row in losses],
        y=list(range(1, len(steps) - 1)), base=[rate / TERA for rate in left],
        customdata=[[theme.plain(r["name"]), _value(r["loss"], peak), flops_rate(rate)]
                    for r, rate in zip(losses, left, strict=True)],
        hovertemplate="%{customdata[0]}: loses %{customdata[1]}<br>left: %{customdata[2]}<extra></extra>",
    )  # fmt: skip
    labels = [
        theme.row_label(sentence_case(row["name"]), _value(row["value"] if row in ends else -row["loss"], peak))
        for row in steps
    ]
    theme.rows(drawn, labels)
    drawn.update_xaxes(range=[0, peak / TERA * 1.03])
    drawn.update_layout(barmode="overlay")
    return drawn


def _left(steps: list[Json]) -> list[float]:
    rate, left = steps[0]["value"], []
    for row in steps[1:-1]:
        rate -= row["loss"]
        left.append(rate)
    return left


def _value(rate: float, peak: float) -> str:
    return f"{flops_rate(rate)} · {percent(abs(rate) / peak)}"


def read(plan: Json) -> str:
    """How much of the peak is achieved and the largest loss on the way."""
    steps = plan["waterfall"]
    peak, achieved = steps[0]["value"], steps[-1]["value"]
    share = f"{flops_rate(achieved)} ({percent(achieved / peak)})"
    reached = f"Of {flops_rate(peak)} per GPU, {share} train the model"
    losses = steps[1:-1]
    if not losses:
        return f"{reached}."
    largest = max(losses, key=lambda row: row["loss"])
    return f"{reached}; the largest loss is {largest['name']} ({percent(largest['loss'] / peak)} of the peak)."
