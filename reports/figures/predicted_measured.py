"""Every published run: predicted against measured step time, both logarithmic, with the 90 % interval."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, change, percent, seconds, span

WORST: Final = 15  # rows that are ringed here and named in the table
MARGIN: Final = 1.5  # of the line beyond the shortest and the longest step
COLOURS: Final = {"dense": "blue", "moe": "orange", "small": "green"}
KINDS: Final = {"dense": "dense", "moe": "mixture of experts", "small": "dense, below 1.5e9 parameters"}


def draw(accuracy: Json) -> go.Figure:
    """A mark for each run, its colour the kind of model and its symbol the GPU generation; the worst are ringed."""
    drawn = theme.figure("Predicted against measured", "measured step time (s)", "predicted step time (s)", height=560)
    parts = defaultdict(list)
    for row in priced(accuracy):
        parts[row["regime"].partition("-")[0], row["kind"]].append(row)
    generations = sorted({generation for generation, _ in parts})
    _line(drawn, [row["measured_step_s"] for rows in parts.values() for row in rows])
    for (generation, kind), rows in sorted(parts.items()):
        name = f"{generation_name(generation)}, {KINDS[kind]}"
        _marks(drawn, name, rows, COLOURS[kind], theme.SYMBOLS[generations.index(generation) % len(theme.SYMBOLS)])
    worst = worst_rows(accuracy)
    drawn.add_scatter(
        name=f"The {len(worst)} worst, named below", mode="markers", hoverinfo="skip",
        x=[row["measured_step_s"] for row in worst], y=[row["predicted_step_s"] for row in worst],
        marker={"symbol": "circle-open", "size": 14, "color": theme.colour("red"), "line": {"width": 2}},
    )  # fmt: skip
    drawn.update_xaxes(type="log", dtick=1)
    drawn.update_yaxes(type="log", dtick=1)
    return drawn


def read(accuracy: Json) -> str:
    """The errors of all runs and the share inside the interval."""
    found = accuracy["summary"]["time"]
    return (
        f"{found['n']:,} runs: the step time is off by {percent(found['median_abs_error'])} in the median and "
        f"{percent(found['p90_abs_error'])} at the ninetieth percentile; {percent(found['coverage_90'])} of what was "
        "measured lies in the 90 % interval, the thin line of each mark."
    )


def drawable(accuracy: Json) -> bool:
    """Whether a run is both predicted and measured."""
    return bool(priced(accuracy))


def priced(accuracy: Json) -> list[Json]:
    """The runs that are both predicted and measured."""
    return [row for row in accuracy["rows"] if row.get("error") is not None]


def worst_rows(accuracy: Json) -> list[Json]:
    """The runs with the largest errors, the worst first."""
    return sorted(priced(accuracy), key=lambda row: -abs(row["error"]))[:WORST]


def generation_name(generation: str) -> str:
    """A GPU generation as its maker writes it: Hopper, CDNA 3."""
    return f"CDNA {generation[4:]}" if generation.startswith("cdna") else generation.capitalize()


def _line(drawn: go.Figure, times: list[float]) -> None:
    """Where prediction and measurement are equal."""
    ends = [min(times) / MARGIN, max(times) * MARGIN]
    drawn.add_scatter(
        name="predicted = measured", mode="lines", x=ends, y=ends, hoverinfo="skip",
        line={"color": theme.colour("grey"), "width": 1.5, "dash": "dash"},
    )  # fmt: skip


def _marks(drawn: go.Figure, name: str, rows: list[Json], colour: str, symbol: str) -> None:
    """The runs of one regime, each with its interval."""
    above = [row["interval_s"][1] - row["predicted_step_s"] for row in rows]
    below = [row["predicted_step_s"] - row["interval_s"][0] for row in rows]
    drawn.add_scatter(
        name=name, mode="markers", x=[row["measured_step_s"] for row in rows],
        y=[row["predicted_step_s"] for row in rows], opacity=0.6,
        marker={"symbol": symbol, "size": 6, "color": theme.colour(colour)},
        error_y={"type": "data", "array": above, "arrayminus": below, "thickness": 0.6, "width": 0,
                 "color": theme.colour(colour)},
        customdata=[_told(row) for row in rows],
        hovertemplate="<b>%{customdata[0]}</b><br>measured %{customdata[1]}, predicted %{customdata[2]} "
        "(%{customdata[3]})<br>90 % interval %{customdata[4]}<extra></extra>",
    )  # fmt: skip


def _told(row: Json) -> list[str]:
    times = (seconds(row["measured_step_s"]), seconds(row["predicted_step_s"]))
    return [theme.plain(row["id"]), *times, change(row["error"]), span(*row["interval_s"])]
