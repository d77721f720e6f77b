"""Placements along a drifting trace: re-plan when what the next passes save is worth the move."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from planner.placement.base import Answer, Placement, Trace
from planner.placement.costs import migration
from planner.placement.portfolio import Progress, judged, metrics_of, place
from planner.placement.task import Task


@dataclass(frozen=True)
class Step:
    """One trace of the series, mean over its layers.

    `keep_s` and `replan_s` [s] a pass through the layer with the placement in force and with a new one, on held-out
    tokens; `move_s` [s] what the move takes; `replanned` whether it pays within the horizon; `moved` slots of a layer
    that change hands, `between_nodes` of them from another node; `before` the placement in force, per layer.
    """

    keep_s: float
    replan_s: float
    move_s: float
    moved: float
    between_nodes: float
    replanned: bool
    before: tuple[Placement, ...] = field(default=(), repr=False, compare=False)


def follow(traces: Iterable[Trace], task: Task, progress: Progress | None = None) -> tuple[list[Answer], list[Step]]:
    """The placement in force after the last trace, judged on it, and what was decided at each trace but the first.

    The first trace is placed from nothing, or from `task.old`.
    """
    answers: list[Answer] = []
    steps: list[Step] = []
    for trace in traces:
        if not answers:
            answers = place(trace, task, progress)
            continue
        before = tuple(answer.placement for answer in answers)
        moving = replace(task, old=before)
        found = place(trace, moving, progress)
        plan, test = trace.halves(task.seed)
        keep = [metrics_of(old, test, task, layer).layer_s for layer, old in enumerate(before)]
        steps.append(_step(before, keep, found, task))
        kept = (
            [] if steps[-1].replanned else [judged(old, plan, test, moving, n, "old") for n, old in enumerate(before)]
        )
        answers = kept or found
    return answers, steps


def _step(before: tuple[Placement, ...], keep: list[float], found: list[Answer], task: Task) -> Step:
    moves = [
        migration(old, new.placement, task.grid, task.rates, task.expert)
        for old, new in zip(before, found, strict=True)
    ]
    old_s, new_s = (float(np.mean(each)) for each in (keep, [answer.metrics.layer_s for answer in found]))
    move = float(np.mean([each.seconds for each in moves]))
    moved, between = (float(np.mean([getattr(each, name) for each in moves])) for name in ("moved", "between_nodes"))
    return Step(old_s, new_s, move, moved, between, (old_s - new_s) * task.horizon > move, before)
