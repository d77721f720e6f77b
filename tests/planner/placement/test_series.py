"""Along a series of traces: the placement in force is judged on each trace and left when a move pays."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from planner.placement.base import Expert, Grid, check
from planner.placement.costs import migration
from planner.placement.evaluate import evaluate
from planner.placement.portfolio import place
from planner.placement.series import follow
from planner.placement.task import Task
from tests.planner.placement import toys

GRID = Grid(4, 2)
TASK = Task(40, GRID, toys.RATES, toys.EXPERT, 32)
FIRST, SECOND = (toys.trace(32, 4, GRID, tokens=960, layers=2, seed=seed) for seed in (0, 5))


@pytest.fixture(scope="module")
def start():
    """The placements of the first trace."""
    return tuple(answer.placement for answer in place(FIRST, TASK))


def test_one_trace_is_only_placed(start):
    """Nothing is decided at the first trace."""
    answers, steps = follow([FIRST], TASK)
    assert steps == []
    for answer, expected in zip(answers, start, strict=True):
        assert np.array_equal(answer.placement.slot_gpu, expected.slot_gpu)


@pytest.mark.parametrize(("horizon", "replanned"), [(1.0, False), (1e9, True)])
def test_a_move_is_made_when_it_pays(start, horizon, replanned):
    """The saved seconds times the horizon against those of the move; the answer is judged on the last trace."""
    answers, (step,) = follow([FIRST, SECOND], replace(TASK, horizon=horizon))
    assert step.replanned is replanned
    assert step.replanned == ((step.keep_s - step.replan_s) * horizon > step.move_s)
    _, test = SECOND.halves(TASK.seed)
    for layer, (answer, old) in enumerate(zip(answers, start, strict=True)):
        check(answer.placement, 32, GRID)
        found = evaluate(answer.placement, test.ids[layer], test.src, 32, GRID, TASK.rates, TASK.expert)
        assert asdict(answer.metrics) == asdict(found)
        same = np.array_equal(answer.placement.slot_expert, old.slot_expert)
        assert same is not replanned
        moved = migration(old, answer.placement, GRID, TASK.rates, TASK.expert)
        assert (answer.moved, answer.moved_between_nodes) == (moved.moved, moved.between_nodes)
        assert answer.bounds["nodes_per_token"] <= answer.metrics.nodes_per_token + 1e-9


def test_what_stays_is_what_was_in_force(start):
    """`keep_s` is the time of the old placement on the new trace's held-out half, and `before` that placement."""
    _, (step,) = follow([FIRST, SECOND], replace(TASK, horizon=1.0))
    _, test = SECOND.halves(TASK.seed)
    kept = [
        evaluate(old, test.ids[layer], test.src, 32, GRID, TASK.rates, TASK.expert).layer_s
        for layer, old in enumerate(start)
    ]
    assert step.keep_s == pytest.approx(np.mean(kept), rel=1e-12)
    assert all(np.array_equal(a.slot_expert, b.slot_expert) for a, b in zip(step.before, start, strict=True))


def test_no_trace_gives_no_answer():
    """An empty series is an empty answer."""
    assert follow([], TASK) == ([], [])


def test_a_small_budget_still_finds_moves(start):
    """With few moves allowed some are made, and the answer is no slower than the old placement; none is allowed, none
    is made between nodes.
    """
    later = toys.trace(32, 4, GRID, tokens=3200, layers=2, seed=5)
    _, test = later.halves(TASK.seed)
    kept = [
        evaluate(old, test.ids[layer], test.src, 32, GRID, TASK.rates, TASK.expert).layer_s
        for layer, old in enumerate(start)
    ]
    for budget, least in ((0, 0), (12, 1)):
        found = place(later, replace(TASK, old=start, budget=budget, horizon=1e9))
        assert least <= max(answer.moved_between_nodes for answer in found) <= budget
        assert np.mean([answer.metrics.layer_s for answer in found]) <= 1.001 * np.mean(kept)


def test_the_same_trace_again_changes_next_to_nothing_between_nodes():
    """Without drift there is little to fetch from other nodes when a fetch costs what it does for a real expert."""
    size = Expert(2048, 1408)
    _, (step,) = follow([FIRST, FIRST], replace(TASK, expert=size, horizon=1e4))
    assert step.between_nodes <= 0.1 * TASK.slots
