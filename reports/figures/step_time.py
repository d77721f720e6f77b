"""Where one step goes: the exposed time of each field, laid end to end."""

from __future__ import annotations

from typing import Final

import plotly.graph_objects as go

from reports import theme
from reports.words import TIMES, Json, name_of, percent, seconds, sentence_case, span

GROUPS: Final = {
    "useful work": ("blue", ("compute",)),
    "repeated work": ("sky", ("recompute",)),
    "communication": ("orange", ("tensor", "context", "expert", "pipeline", "data")),
    "idle": ("red", ("launch", "bubble", "imbalance", "stragglers")),
    "other": ("purple", ()),
}


def group_of(field: str) -> str:
    """The group of a field of `time`."""
    return next((name for name, (_, fields) in GROUPS.items() if field in fields), "other")


def draw(plan: Json) -> go.Figure:
    """Horizontal waterfall of `estimate.time`, the step with its 90 % interval as the last row."""
    estimate = plan["estimate"]
    parts = {field: value for field, value in estimate["time"].items() if value > 0}
    step = estimate["step_time_s"]
    drawn = theme.figure("Where one step goes", "time in the step (s)", "")
    starts, clock = {}, 0.0
    for field, value in parts.items():
        starts[field] = clock
        clock += value
    order = list(parts)
    for group, (colour, _) in GROUPS.items():
        fields = [field for field in parts if group_of(field) == group]
        if fields:
            drawn.add_bar(
                name=sentence_case(group), orientation="h", marker_color=theme.colour(colour),
                x=[parts[f] for f in fields], y=[order.index(f) for f in fields], base=[starts[f] for f in fields],
                customdata=[[name_of(f, TIMES), seconds(parts[f]), percent(parts[f] / step)] for f in fields],
                hovertemplate="%{customdata[0]}: %{customdata[1]}, %{customdata[2]} of the step<extra></extra>",
            )  # fmt: skip
    lower, upper = estimate["interval_s"]
    interval = span(lower, upper)
    drawn.add_bar(
        name="Step", showlegend=False, orientation="h", marker_color=theme.colour("grey"), x=[step],
        y=[len(order)], hovertemplate=f"step: {seconds(step)}, 90 % interval {interval}<extra></extra>",
        error_x={"type": "data", "symmetric": False, "array": [upper - step], "arrayminus": [step - lower],
                 "color": theme.colour("ink"), "thickness": 1.5, "width": 6},
    )  # fmt: skip
    labels = [
        theme.row_label(sentence_case(name_of(f, TIMES)), f"{seconds(v)} · {percent(v / step)}")
        for f, v in parts.items()
    ]
    theme.rows(drawn, [*labels, theme.row_label(f"Step {seconds(step)}", interval)])
    drawn.update_xaxes(range=[0, max(upper, step) * 1.03])
    drawn.update_layout(barmode="overlay")
    return drawn


def read(plan: Json) -> str:
    """The share of useful compute and the largest cost beside it."""
    time, step = plan["estimate"]["time"], plan["estimate"]["step_time_s"]
    useful = f"Useful compute is {percent(time['compute'] / step)} of the step"
    rest = {field: value for field, value in time.items() if field != "compute" and value > 0}
    if not rest:
        return f"{useful}; nothing else is exposed."
    largest = max(rest, key=lambda field: rest[field])
    share = f"{seconds(rest[largest])} ({percent(rest[largest] / step)})"
    return f"{useful}; the largest cost beside it is {name_of(largest, TIMES)}: {share}."
