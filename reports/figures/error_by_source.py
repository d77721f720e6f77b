"""Absolute errors of the step time by source: median and ninetieth percentile."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, percent


def draw(accuracy: Json) -> go.Figure:
    """A bar for the median of each source, the largest source first; a diamond at the ninetieth percentile."""
    parts = _parts(accuracy)
    drawn = theme.figure("Error by source", "error of the step time (%)", "")
    places = list(range(len(parts)))
    drawn.add_bar(
        name="Median", orientation="h", y=places, x=[100 * found["median_abs_error"] for _, found in parts],
        marker_color=theme.colour("blue"), customdata=[theme.plain(name) for name, _ in parts],
        hovertemplate="%{customdata}: median %{x:.1f} %<extra></extra>",
    )  # fmt: skip
    drawn.add_scatter(
        name="Ninetieth percentile", mode="markers", y=places, x=[100 * found["p90_abs_error"] for _, found in parts],
        marker={"symbol": "diamond", "size": 9, "color": theme.colour("orange")},
        customdata=[theme.plain(name) for name, _ in parts],
        hovertemplate="%{customdata}: ninetieth percentile %{x:.1f} %<extra></extra>",
    )  # fmt: skip
    theme.rows(drawn, [theme.row_label(name, runs(found["n"])) for name, found in parts])
    drawn.update_xaxes(rangemode="tozero")
    return drawn


def read(accuracy: Json) -> str:
    """The sources that are predicted best and worst in the median."""
    parts = sorted(_parts(accuracy), key=lambda part: float(part[1]["median_abs_error"]))
    (best, low), (worst, high) = parts[0], parts[-1]
    return (
        f"Closest in the median is {best} with {percent(low['median_abs_error'])} ({runs(low['n'])}), furthest off "
        f"{worst} with {percent(high['median_abs_error'])} ({runs(high['n'])})."
    )


def drawable(accuracy: Json) -> bool:
    """Whether there are errors to show."""
    return bool(_parts(accuracy))


def runs(count: int) -> str:
    """A number of runs in words."""
    return "1 run" if count == 1 else f"{count:,} runs"


def _parts(accuracy: Json) -> list[tuple[str, Json]]:
    parts = accuracy["summary"]["by_source"].items()
    return sorted(((name, found) for name, found in parts if found["n"]), key=lambda part: (-part[1]["n"], part[0]))
