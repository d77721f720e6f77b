"""The figures by name: which artefact each draws, how, and the sentence that reads it.

To add one: a file with `draw` and `read`, and a row here; page and tests find it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import plotly.graph_objects as go

from reports.figures import (
    comparison,
    cost_to_train,
    days_to_train,
    frontier,
    goodput,
    headroom,
    memory_stages,
    mfu,
    parameters,
    searched,
    sensitivity,
    step_time,
    tokens_per_day,
    waterfall,
)
from reports.words import Json


class Drawing(NamedTuple):
    """`artefact` is plan, search, comparison or capacity; `drawable`: whether this one has what the figure shows."""

    artefact: str
    draw: Callable[[Json], go.Figure]
    read: Callable[[Json], str]
    drawable: Callable[[Json], bool]


def _has(key: str) -> Callable[[Json], bool]:
    return lambda artefact: bool(artefact.get(key))


FIGURES: Final = {
    "step_time": Drawing("plan", step_time.draw, step_time.read, _has("estimate")),
    "waterfall": Drawing("plan", waterfall.draw, waterfall.read, _has("waterfall")),
    "memory_stages": Drawing("plan", memory_stages.draw, memory_stages.read, _has("stages")),
    "sensitivity": Drawing("plan", sensitivity.draw, sensitivity.read, _has("sensitivity")),
    "parameters": Drawing("plan", parameters.draw, parameters.read, _has("model")),
    "frontier": Drawing("search", frontier.draw, frontier.read, _has("frontier")),
    "searched": Drawing("search", searched.draw, searched.read, _has("searched")),
    "comparison": Drawing("comparison", comparison.draw, comparison.read, _has("rows")),
    "days_to_train": Drawing("capacity", days_to_train.draw, days_to_train.read, _has("series")),
    "cost_to_train": Drawing("capacity", cost_to_train.draw, cost_to_train.read, _has("series")),
    "tokens_per_day": Drawing("capacity", tokens_per_day.draw, tokens_per_day.read, _has("series")),
    "mfu": Drawing("capacity", mfu.draw, mfu.read, _has("series")),
    "headroom": Drawing("capacity", headroom.draw, headroom.read, _has("series")),
    "goodput": Drawing("capacity", goodput.draw, goodput.read, goodput.known),
}
