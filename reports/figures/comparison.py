"""A measured step beside its prediction, phase by phase; what the profiles alone would have said is a mark."""

from __future__ import annotations

from typing import Final

import plotly.graph_objects as go

from reports import theme
from reports.words import TIMES, Json, change, name_of, seconds, sentence_case

WHOLE: Final = "step"
CLOCKS: Final = {"cpu": "CPU time of the mean rank (s)", "wall": "wall clock (s)"}


def draw(comparison: Json) -> go.Figure:
    """Two bars for each phase and for the step; a third mark where the uncalibrated prediction is known."""
    rows = _rows(comparison)
    drawn = theme.figure("Predicted beside measured", f"time in the step, {CLOCKS[comparison['clock']]}", "")
    for name, key, colour, shift in (
        ("Measured", "measured_s", "blue", -0.2),
        ("Predicted", "predicted_s", "orange", 0.2),
    ):
        known = [(index, row) for index, row in enumerate(rows) if row[key] is not None]
        drawn.add_bar(
            name=name, orientation="h", x=[row[key] for _, row in known], y=[index + shift for index, _ in known],
            marker_color=theme.colour(colour),
            customdata=[[_name(row), seconds(row[key])] for _, row in known],
            hovertemplate=f"{name}: %{{customdata[0]}} %{{customdata[1]}}<extra></extra>",
        )  # fmt: skip
    before = [(index, row["uncalibrated_s"]) for index, row in enumerate(rows) if "uncalibrated_s" in row]
    if before:
        drawn.add_scatter(
            name="Predicted without calibration", mode="markers", x=[value for _, value in before],
            y=[index + 0.2 for index, _ in before],
            marker={"symbol": "diamond", "size": 9, "color": theme.colour("grey")},
            customdata=[[seconds(value)] for _, value in before],
            hovertemplate="without calibration: %{customdata[0]}<extra></extra>",
        )  # fmt: skip
    theme.rows(drawn, [theme.row_label(sentence_case(_name(row)), _told(row)) for row in rows])
    drawn.update_traces(width=0.36, selector={"type": "bar"})
    drawn.update_layout(barmode="overlay")
    return drawn


def read(comparison: Json) -> str:
    """The error of the step, and the phase that is furthest off in seconds."""
    step = comparison["step"]
    head = f"The step was predicted at {seconds(step['predicted_s'])} and measured at {seconds(step['measured_s'])}"
    known = [row for row in comparison["rows"] if row["measured_s"] is not None]
    if not known:
        return f"{head} ({change(step['error'])})."
    far = max(known, key=lambda row: abs(row["predicted_s"] - row["measured_s"]))
    gap = seconds(abs(far["predicted_s"] - far["measured_s"]))
    return f"{head} ({change(step['error'])}); the phase furthest off is {name_of(far['phase'], TIMES)}, by {gap}."


def _rows(comparison: Json) -> list[Json]:
    return [*comparison["rows"], {"phase": WHOLE, **comparison["step"]}]


def _name(row: Json) -> str:
    return name_of(row["phase"], TIMES)


def _told(row: Json) -> str:
    return change(row["error"]) if row["error"] is not None else "not measured apart"
