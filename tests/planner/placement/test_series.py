"""Placements along a drifting trace: kept while a move does not pay, changed when it does."""

from dataclasses import replace

import numpy as np
import pytest

from planner.placement.base import Grid
from planner.placement.portfolio import Task, metrics_of
from planner.placement.series import follow
from tests.planner.placement import toys

GRID = Grid(4, 2)
FIRST, LATER = (toys.trace(32, 4, GRID, tokens=1600, layers=1, seed=seed) for seed in (0, 5))
TASK = Task(40, GRID, toys.RATES, toys.EXPERT, 32, most=8000)


@pytest.mark.parametrize(("horizon", "replanned"), [(1.0, False), (1e9, True)])
def test_a_move_is_made_when_it_pays(horizon, replanned):
    """Over one pass nothing pays; over many a placement for other tokens is given up for a faster one."""
    answers, steps = follow([FIRST, LATER], replace(TASK, horizon=horizon))
    assert [step.replanned for step in steps] == [replanned]
    assert len(answers) == 1
    if replanned:
        assert steps[0].replan_s < steps[0].keep_s
        assert (steps[0].keep_s - steps[0].replan_s) * horizon > steps[0].move_s > 0.0
        assert 0 < steps[0].between_nodes <= TASK.slots


def test_what_is_kept_is_what_was_placed():
    """The placement in force after a step that does not pay is the first, at the cost that the step states."""
    (first,), none = follow([FIRST], TASK)
    (kept,), (step,) = follow([FIRST, LATER], replace(TASK, horizon=1.0))
    assert none == []
    assert np.array_equal(kept.placement.slot_gpu, first.placement.slot_gpu)
    assert np.array_equal(kept.placement.slot_expert, first.placement.slot_expert)
    _, test = LATER.halves(TASK.seed)
    assert step.keep_s == pytest.approx(metrics_of(first.placement, test, TASK, 0).layer_s)


def test_the_same_trace_again_changes_nothing_between_nodes():
    """Without drift there is next to nothing to fetch from other nodes."""
    _, (step,) = follow([FIRST, FIRST], TASK)
    assert step.between_nodes <= 0.1 * TASK.slots
