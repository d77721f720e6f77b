"""Mechanisms of a software stack from measured steps: the inverse of `planner.simulate.phases.stage_phases`.

Each step gives a row for every phase and one for the whole; a row weighs by its share of the step, so that the fit
follows what takes time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from executor.compare import OTHER, Measured, phase_times
from executor.fit.solve import Fit, Parameter, fit
from planner.plan import Plan
from planner.simulate.phases import mean_phases, stage_phases

GRADIENT_COST = "gradient_cost"
"""1 - gradient_overlap: what gradient traffic costs beside computation, over what it costs alone."""
PARAMETERS = {
    "kernel_gap": Parameter(8e-6, 5e-7, 2e-4),
    "pointwise_traffic": Parameter(2.5, 0.2, 20.0),
    "attention_rate": Parameter(1.0, 0.2, 3.0, trust=0.3),
    "expert_gap": Parameter(2e-5, 1e-6, 1e-3),
    "collective_gap": Parameter(2e-4, 1e-6, 1e-2),
    "message_gap": Parameter(2e-4, 1e-6, 1e-2),
    "cut_gap": Parameter(2e-4, 1e-6, 1e-2),
    GRADIENT_COST: Parameter(2.0, 0.1, 10.0),
    "shard_gap": Parameter(5e-4, 1e-6, 1e-2),
    "shard_traffic": Parameter(4.0, 0.1, 100.0),
    "split_traffic": Parameter(4.0, 0.1, 100.0),
    "pass_gap": Parameter(1e-4, 1e-6, 1e-2),
    "tensor_gap": Parameter(2e-5, 1e-6, 1e-2),
    "optimizer_traffic": Parameter(2.0, 0.3, 20.0),
    "step_overhead": Parameter(1e-3, 1e-5, 1.0),
}
WHOLE = 2.0  # weight of the whole step beside its phases, whose weights add to 1
LEAST_SHARE = 0.01  # of a step; smaller phases are noise


@dataclass(frozen=True)
class Run:
    """A plan that was run: its `name`, the plan on calibrated hardware, and what was measured."""

    name: str
    plan: Plan
    measured: Measured


def with_stack(plan: Plan, values: Mapping[str, float]) -> Plan:
    """The plan with mechanisms of its stack replaced."""
    changed: dict[str, Any] = mechanisms(values)
    setting = plan.setting
    return replace(plan, setting=replace(setting, stack=replace(setting.stack, **changed)))


def mechanisms(values: Mapping[str, float]) -> dict[str, float]:
    """Fields of a stack from fitted parameters."""
    fields = {name: value for name, value in values.items() if name != GRADIENT_COST}
    return fields | ({"gradient_overlap": 1.0 - values[GRADIENT_COST]} if GRADIENT_COST in values else {})


def work(plan: Plan) -> dict[str, float]:
    """Predicted seconds of a step by phase, the mean over ranks, without waiting; `total` is their sum."""
    stages = stage_phases(plan.setting, plan.degrees)
    total = sum(stage.total for stage in stages) / len(stages)
    found = phase_times(mean_phases(stages, 0.0), total, "cpu")
    return {**found, "total": total}


def fit_stack(runs: Sequence[Run]) -> Fit:
    """The mechanisms under which the planner predicts the steps best (CPU time of the mean rank).

    InputError when there are no runs.
    """
    rows = [(run, name, seconds, weight) for run in runs for name, seconds, weight in _rows(run.measured)]

    def predict(values: Mapping[str, float]) -> list[float]:
        found = {run.name: work(with_stack(run.plan, values)) for run in runs}
        return [max(found[run.name][name], 1e-9) for run, name, _, _ in rows]

    times, weights = [row[2] for row in rows], [row[3] for row in rows]
    return fit(PARAMETERS, predict, times, weights)


def _rows(measured: Measured) -> list[tuple[str, float, float]]:
    """(phase, seconds, weight) of one run."""
    shares = [
        (name, seconds, seconds / measured.step)
        for name, seconds in measured.phases.items()
        if name not in {"bubble", OTHER} and seconds >= LEAST_SHARE * measured.step
    ]
    return [*shares, ("total", measured.step, WHOLE)]
