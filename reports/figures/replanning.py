"""When to re-plan along a series of traces: the layer with the placement in force beside a new one, and the moves."""

from __future__ import annotations

from pathlib import PurePath

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, percent, seconds


def drawable(placement: Json) -> bool:
    """Whether several traces were followed."""
    return bool(placement.get("series"))


def draw(placement: Json) -> go.Figure:
    """Time of a layer at each trace, kept and re-planned; what was chosen is full, the other pale."""
    steps = placement["series"]
    drawn = theme.figure("Along the traces", "trace, in order", "time of a layer (µs)", 400)
    names = [f"{number}. {theme.plain(PurePath(step['routing']).name)}" for number, step in enumerate(steps, start=2)]
    told = [[f"{step['moved']:.1f}", f"{step['moved_between_nodes']:.1f}", seconds(step["move_s"])] for step in steps]
    for name, key, colour, chosen in (
        ("Placement in force", "keep_s", "grey", False),
        ("New placement", "replan_s", "blue", True),
    ):
        drawn.add_bar(
            name=name, x=names, y=[1e6 * step[key] for step in steps], customdata=told,
            marker={"color": theme.colour(colour), "line": {"width": 0},
                    "opacity": [1.0 if step["replanned"] is chosen else 0.4 for step in steps]},
            hovertemplate=f"{name}: %{{y:.0f}} µs<br>re-planning moves %{{customdata[0]}} slots of a layer, "
                          "%{customdata[1]} between nodes, in %{customdata[2]}<extra></extra>",
        )  # fmt: skip
    drawn.update_layout(barmode="group")
    drawn.update_xaxes(type="category", tickangle=0, nticks=12)
    drawn.update_yaxes(rangemode="tozero")
    return drawn


def read(placement: Json) -> str:
    """How often it paid to re-plan, what it saved and what it moved."""
    steps = placement["series"]
    paid = [step for step in steps if step["replanned"]]
    if not paid:
        return f"At none of the later traces ({len(steps)}) does a new placement save what its move costs."
    saved = sum(1 - step["replan_s"] / step["keep_s"] for step in paid) / len(paid)
    between, slots = sum(step["moved_between_nodes"] for step in paid) / len(paid), placement["slots"]
    return (
        f"It pays to re-plan at {len(paid)} of {len(steps)} later traces: that saves {percent(saved)} of a layer's "
        f"time and moves {between:.1f} of {slots:,} slots between nodes, {percent(between / slots)}."
    )
