"""The memory of one GPU on each pipeline stage, against its capacity."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import GIB, PARTS, Json, memory, name_of, percent, sentence_case


def draw(plan: Json) -> go.Figure:
    """Stacked bars of `stages[].memory` with the capacity line and the headroom of the fullest stage."""
    stages, capacity = plan["stages"], plan["estimate"]["memory_capacity_bytes"]
    drawn = theme.figure("Memory on each pipeline stage", "pipeline stage", "memory per GPU (GiB)", height=430)
    names = [str(stage["stage"]) for stage in stages]
    fields = [f for f in stages[0]["memory"] if any(stage["memory"].get(f, 0) > 0 for stage in stages)]
    for index, field in enumerate(fields):
        values = [stage["memory"].get(field, 0.0) for stage in stages]
        label = sentence_case(name_of(field, PARTS))
        told = [(theme.plain(s["layers"]), memory(v), memory(s["total"])) for s, v in zip(stages, values, strict=True)]
        drawn.add_bar(
            name=label, x=names, y=[value / GIB for value in values],
            marker={"color": theme.series(index), "line": {"color": theme.colour("surface"), "width": 1}},
            customdata=told,
            hovertemplate=f"stage %{{x}} (%{{customdata[0]}})<br>{theme.plain(label)}: %{{customdata[1]}}"
                          "<br>stage total: %{customdata[2]}<extra></extra>",
        )  # fmt: skip
    drawn.add_hline(y=capacity / GIB, line={"color": theme.colour("ink"), "width": 1.5, "dash": "dash"})
    drawn.add_annotation(
        x=1, xref="paper", xanchor="right", y=capacity / GIB, yanchor="bottom", showarrow=False,
        text=f"<b>{memory(capacity)} capacity</b> · {_headroom(plan)}", bgcolor=theme.colour("surface"),
    )  # fmt: skip
    top = max(capacity, *(stage["total"] for stage in stages)) / GIB
    drawn.update_layout(barmode="stack", bargap=0.25)
    drawn.update_xaxes(type="category", tickangle=0)
    drawn.update_yaxes(range=[0, top * 1.12])
    return drawn


def _headroom(plan: Json) -> str:
    fullest = max(plan["stages"], key=lambda stage: stage["total"])
    room = plan["estimate"]["memory_capacity_bytes"] - fullest["total"]
    state = "free" if room >= 0 else "over"
    return f"{memory(abs(room))} {state} on stage {theme.plain(fullest['stage'])}"


def read(plan: Json) -> str:
    """The fullest stage, its headroom and its largest part."""
    capacity = plan["estimate"]["memory_capacity_bytes"]
    fullest = max(plan["stages"], key=lambda stage: stage["total"])
    largest = max(fullest["memory"], key=lambda field: fullest["memory"][field])
    part = f"its largest part is {name_of(largest, PARTS)} ({percent(fullest['memory'][largest] / fullest['total'])})"
    used = f"{memory(fullest['total'])} of {memory(capacity)}"
    return f"Stage {fullest['stage']} is the fullest: {used}, {percent(fullest['total'] / capacity)}; {part}."
