"""The figures by name: which artefact each draws, how, and the sentence that reads it.

To add one: a file with `draw` and `read`, and a row here; page and tests find it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import plotly.graph_objects as go

from reports.figures import (
    batch_tokens,
    before_after,
    coactivation,
    comparison,
    cost_to_train,
    days_to_train,
    error_by_source,
    expert_load,
    frontier,
    goodput,
    gpu_load,
    growth_slopes,
    headroom,
    layout_ranking,
    learning_rate,
    memory_stages,
    mfu,
    migration,
    node_traffic,
    parameters,
    predicted_measured,
    replanning,
    routing_drift,
    searched,
    sensitivity,
    step_time,
    tokens_per_day,
    training_curve,
    trials,
    waterfall,
)
from reports.words import Json


class Drawing(NamedTuple):
    """`artefact`: plan, search, comparison, compression, capacity, placement, training, tuning or accuracy.

    `drawable`: whether it has what the figure shows.
    """

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
    "batch_tokens": Drawing("plan", batch_tokens.draw, batch_tokens.read, batch_tokens.drawable),
    "frontier": Drawing("search", frontier.draw, frontier.read, _has("frontier")),
    "searched": Drawing("search", searched.draw, searched.read, _has("searched")),
    "comparison": Drawing("comparison", comparison.draw, comparison.read, _has("rows")),
    "before_after": Drawing("compression", before_after.draw, before_after.read, _has("rows")),
    "days_to_train": Drawing("capacity", days_to_train.draw, days_to_train.read, _has("series")),
    "cost_to_train": Drawing("capacity", cost_to_train.draw, cost_to_train.read, _has("series")),
    "tokens_per_day": Drawing("capacity", tokens_per_day.draw, tokens_per_day.read, _has("series")),
    "mfu": Drawing("capacity", mfu.draw, mfu.read, _has("series")),
    "headroom": Drawing("capacity", headroom.draw, headroom.read, _has("series")),
    "goodput": Drawing("capacity", goodput.draw, goodput.read, goodput.known),
    "expert_load": Drawing("placement", expert_load.draw, expert_load.read, _has("statistics")),
    "gpu_load": Drawing("placement", gpu_load.draw, gpu_load.read, _has("statistics")),
    "node_traffic": Drawing("placement", node_traffic.draw, node_traffic.read, node_traffic.drawable),
    "coactivation": Drawing("placement", coactivation.draw, coactivation.read, coactivation.drawable),
    "routing_drift": Drawing("placement", routing_drift.draw, routing_drift.read, _has("statistics")),
    "replanning": Drawing("placement", replanning.draw, replanning.read, replanning.drawable),
    "training_curve": Drawing("training", training_curve.draw, training_curve.read, _has("curve")),
    "learning_rate": Drawing("training", learning_rate.draw, learning_rate.read, _has("curve")),
    "trials": Drawing("tuning", trials.draw, trials.read, _has("trials")),
    "predicted_measured": Drawing(
        "accuracy", predicted_measured.draw, predicted_measured.read, predicted_measured.drawable
    ),
    "error_by_source": Drawing("accuracy", error_by_source.draw, error_by_source.read, error_by_source.drawable),
    "layout_ranking": Drawing("accuracy", layout_ranking.draw, layout_ranking.read, layout_ranking.drawable),
    "growth_slopes": Drawing("accuracy", growth_slopes.draw, growth_slopes.read, growth_slopes.drawable),
    "migration": Drawing("placement", migration.draw, migration.read, migration.drawable),
}
