"""Placements along a drifting trace: re-plan when what the next passes save is worth the move."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from planner.placement.base import Answer, Trace
from planner.placement.costs import migration
from planner.placement.portfolio import Progress, Task, metrics_of, place


@dataclass(frozen=True)
class Step:
    """One trace of the series, mean over its layers.

    `keep_s` and `replan_s` [s] a pass through the layer with the placement in force and with a new one, on held-out
    tokens; `move_s` [s] what the move takes; `replanned` whether it pays within the horizon; `between_nodes` slots of a
    layer that change nodes.
    """

    keep_s: float
    replan_s: float
    move_s: float
    between_nodes: float
    replanned: bool


def follow(traces: Iterable[Trace], task: Task, progress: Progress | None = None) -> tuple[list[Answer], list[Step]]:
    """The placement in force after the last trace, and what was decided at each trace but the first.

    The first trace is placed from nothing, or from `task.old`.
    """
    answers: list[Answer] = []
    steps: list[Step] = []
    for trace in traces:
        if not answers:
            answers = place(trace, task, progress)
            continue
        old = tuple(answer.placement for answer in answers)
        found = place(trace, replace(task, old=old), progress)
        step = _step(old_of=answers, found=found, trace=trace, task=task)
        steps.append(step)
        if step.replanned:
            answers = found
    return answers, steps


def _step(old_of: list[Answer], found: list[Answer], trace: Trace, task: Task) -> Step:
    _, test = trace.halves(task.seed)
    pairs = list(zip(old_of, found, strict=True))
    keep = [metrics_of(old.placement, test, task, layer).layer_s for layer, (old, _) in enumerate(pairs)]
    moves = [migration(a.placement, b.placement, task.grid, task.rates, task.expert) for a, b in pairs]
    kept, new = float(np.mean(keep)), float(np.mean([answer.metrics.layer_s for answer in found]))
    move = float(np.mean([each.seconds for each in moves]))
    between = float(np.mean([each.between_nodes for each in moves]))
    return Step(kept, new, move, between, replanned=(kept - new) * task.horizon > move)
