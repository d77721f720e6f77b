"""Any figure of merit against the number of GPUs: one line per cluster, the knee ringed, what does not fit crossed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, count, seconds, span, strategy_line

KIBI = 1024
ROOM = 8  # tick labels that fit side by side at 390 px


class Merit(NamedTuple):
    """A figure of merit: `value` of a feasible point in the axis' unit, `words` the same for people.

    With `tick`, the label of a round value, the axis is logarithmic.
    """

    title: str
    axis: str
    value: Callable[[Json], float]
    words: Callable[[Json], str]
    tick: Callable[[float], str] | None = None


def against_gpus(capacity: Json, merit: Merit) -> go.Figure:
    """`merit` of every feasible point over GPUs (base-2 axis)."""
    drawn = theme.figure(merit.title, "GPUs (1k = 1,024)", merit.axis, height=400)
    for index, line in enumerate(capacity["series"]):
        _line(drawn, line, merit, index)
    for index, line in enumerate(capacity["series"]):
        _knee(drawn, line, merit, index, [other for other in capacity["series"] if other is not line])
    _crosses(drawn, capacity["series"])
    sizes = [point["gpus"] for line in capacity["series"] for point in line["points"]]
    ticks = _powers(sizes)
    pad = 0.35 * math.log10(2)
    drawn.update_xaxes(
        type="log", tickvals=ticks, ticktext=_labels(ticks), tickangle=0,
        range=[math.log10(min(sizes)) - pad, math.log10(max(sizes)) + pad],
    )  # fmt: skip
    drawn.update_yaxes(rangemode="tozero", exponentformat="B", minexponent=3)
    values = [merit.value(point) for line in capacity["series"] for point in feasible(line, merit)]
    if merit.tick and values:
        marks = _round_values(min(values), max(values))
        drawn.update_yaxes(type="log", tickvals=marks, ticktext=[merit.tick(mark) for mark in marks])
    drawn.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True})
    return drawn


def feasible(line: Json, merit: Merit | None = None) -> list[Json]:
    """The feasible points of a series, and of those the ones that `merit` can read."""
    points = [point for point in line["points"] if point["feasible"]]
    return points if merit is None else [point for point in points if not math.isnan(merit.value(point))]


def compare(capacity: Json, merit: Merit) -> str:
    """The clusters side by side, at the largest size they share up to the first knee (or each at its own largest)."""
    lines = {line["cluster"]: {p["gpus"]: p for p in feasible(line, merit)} for line in capacity["series"]}
    lines = {cluster: points for cluster, points in lines.items() if points}
    if not lines:
        return "No size fits on any cluster."
    shared = set.intersection(*(set(points) for points in lines.values()))
    knees = [line["knee"] for line in capacity["series"] if line["knee"] is not None]
    shared = {size for size in shared if size <= min(knees, default=size)} or shared
    if shared:
        size = max(shared)
        told = ", ".join(f"{merit.words(points[size])} on {cluster}" for cluster, points in lines.items())
        return f"At {size:,} GPUs: {told}."
    told = ", ".join(f"{merit.words(pts[max(pts)])} on {name} ({max(pts):,} GPUs)" for name, pts in lines.items())
    return f"At the largest size of each: {told}."


def _line(drawn: go.Figure, line: Json, merit: Merit, index: int) -> None:
    points, colour = feasible(line, merit), theme.series(index)
    name = theme.plain(line["cluster"])
    drawn.add_scatter(
        name=name, x=[p["gpus"] for p in points], y=[merit.value(p) for p in points], mode="lines+markers",
        line={"color": colour, "width": 2, "dash": theme.DASHES[index % len(theme.DASHES)]},
        marker={"color": colour, "size": 8, "symbol": theme.SYMBOLS[index % len(theme.SYMBOLS)]},
        customdata=[_told(p, merit) for p in points],
        hovertemplate=f"{name}, %{{customdata[0]}} GPUs<br><b>%{{customdata[1]}}</b><br>%{{customdata[2]}}"
                      "<br>step %{customdata[3]}<extra></extra>",
    )  # fmt: skip


def _knee(drawn: go.Figure, line: Json, merit: Merit, index: int, others: list[Json]) -> None:
    """Ring the knee; its label stands on the free side of the curve: outwards from the other clusters' curves."""
    points, colour = feasible(line, merit), theme.series(index)
    for point in (p for p in points if p["gpus"] == line["knee"]):
        value = merit.value(point)
        beside = [merit.value(p) for other in others for p in feasible(other, merit) if p["gpus"] == point["gpus"]]
        best = max(beside, default=-math.inf)
        above = value > best or (value == best and index % 2 == 0)
        falls = merit.value(points[-1]) < merit.value(points[0])
        side = "right" if above == falls else "left"
        drawn.add_scatter(
            x=[point["gpus"]], y=[value], mode="markers+text", showlegend=False, hoverinfo="skip", cliponaxis=False,
            marker={"color": "rgba(0,0,0,0)", "size": 17, "line": {"color": colour, "width": 2}},
            text=[f"<b>knee {_short(point['gpus'])}</b>"], textposition=f"{'top' if above else 'bottom'} {side}",
            textfont={"color": colour, "size": 11},
        )  # fmt: skip


def _told(point: Json, merit: Merit) -> list[str]:
    step = f"{seconds(point['step_time_s'])} ({span(*point['interval_s'])})"
    return [f"{point['gpus']:,}", merit.words(point), theme.plain(strategy_line(point["strategy"])), step]


def _crosses(drawn: go.Figure, lines: Iterable[Json]) -> None:
    first = True
    for index, line in enumerate(lines):
        bad = [point for point in line["points"] if not point["feasible"]]
        if not bad:
            continue
        drawn.add_scatter(
            name="Does not fit", legendgroup="infeasible", showlegend=first, yaxis="y2", mode="markers",
            x=[p["gpus"] for p in bad], y=[0.03 + 0.05 * index] * len(bad),
            marker={"symbol": "x-thin", "size": 9, "line": {"color": theme.series(index), "width": 2}},
            customdata=[[f"{p['gpus']:,}", theme.plain(p["reason"])] for p in bad],
            hovertemplate=f"{theme.plain(line['cluster'])}, %{{customdata[0]}} GPUs: %{{customdata[1]}}<extra></extra>",
        )  # fmt: skip
        first = False


def _powers(sizes: list[Any]) -> list[int]:
    return [2**n for n in range(math.floor(math.log2(min(sizes))), math.ceil(math.log2(max(sizes))) + 1)]


def _labels(ticks: list[int]) -> list[str]:
    """Every power named, or every second one when they are too many for a phone."""
    step = 1 if len(ticks) <= ROOM else 2
    return [_short(tick) if index % step == 0 else "" for index, tick in enumerate(ticks)]


def _round_values(low: float, high: float) -> list[float]:
    """1, 2, 5 times the powers of ten from below `low` to above `high`."""
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    return [
        digit * 10.0**decade for decade in decades for digit in (1, 2, 5) if low / 2 <= digit * 10.0**decade <= 2 * high
    ]


def _short(size: int) -> str:
    return f"{size // KIBI}k" if size >= KIBI and size % KIBI == 0 else count(size)
