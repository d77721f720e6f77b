"""How well growth is predicted: slope of throughput over the number of GPUs, predicted against measured."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, percent


def draw(accuracy: Json) -> go.Figure:
    """A mark for each series of runs; dotted lines bound the tolerance."""
    found = accuracy["summary"]["scaling"]
    drawn = theme.figure(
        "Scaling", "measured slope of log tokens/s over log GPUs", "predicted slope of log tokens/s over log GPUs", 480
    )
    slopes = [group[key] for group in found["groups"] for key in ("measured_slope", "predicted_slope")]
    ends = [min(slopes) - 0.03, max(slopes) + 0.03]
    for name, shift, dash in (
        ("predicted = measured", 0.0, "dash"),
        (f"within {found['tolerance']}", found["tolerance"], "dot"),
        (None, -found["tolerance"], "dot"),
    ):
        drawn.add_scatter(
            name=name, showlegend=name is not None, mode="lines", x=ends, y=[end + shift for end in ends],
            hoverinfo="skip", line={"color": theme.colour("grey"), "width": 1.5, "dash": dash},
        )  # fmt: skip
    drawn.add_scatter(
        name="Series of runs", mode="markers", x=[group["measured_slope"] for group in found["groups"]],
        y=[group["predicted_slope"] for group in found["groups"]], opacity=0.8,
        marker={"size": 9, "color": theme.colour("blue")},
        customdata=[_told(group) for group in found["groups"]],
        hovertemplate="<b>%{customdata[0]}</b>, %{customdata[1]} GPUs<br>measured %{x:.3f}, predicted %{y:.3f}"
        "<extra></extra>",
    )  # fmt: skip
    return drawn


def read(accuracy: Json) -> str:
    """How many slopes are within the tolerance."""
    found = accuracy["summary"]["scaling"]
    return (
        f"{percent(found['within_tolerance'])} of {found['n']} series have a slope within {found['tolerance']} of the "
        f"measured one (1 is perfect scaling); the median difference is {found['median_abs_error']:.3f}."
    )


def drawable(accuracy: Json) -> bool:
    """Whether a series is long enough for a slope."""
    return bool((accuracy["summary"].get("scaling") or {}).get("groups"))


def _told(group: Json) -> list[str]:
    return [theme.plain(f"{group['name']}, {group['model']}"), f"{group['gpus'][0]:,} to {group['gpus'][1]:,}"]
