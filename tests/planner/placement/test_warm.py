"""Re-planning from a placement in force, and which member of the portfolio is taken."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.placement.anneal import Weights
from planner.placement.base import Grid, check
from planner.placement.costs import migration
from planner.placement.evaluate import evaluate
from planner.placement.joint import balanced, joint, tokens_of
from planner.placement.portfolio import Trial, pick
from planner.placement.replicas import replica_counts
from planner.placement.task import Task
from planner.placement.warm import LIGHT, near_counts, warm
from tests.planner.placement import toys

GRID = Grid(4, 2)
TASK = Task(40, GRID, toys.RATES, toys.EXPERT, 32)
WEIGHTS = Weights(0.5, 0.5)


@given(toys.layers(), st.integers(0, 2**32))
def test_replicas_change_no_more_than_they_must(case, seed):
    """All slots stay in use, no replica carries too much, and counts that carry no more than that stay as they are."""
    grid, load, slots = case
    rng = np.random.default_rng(seed)
    old = replica_counts(rng.permutation(load), slots, grid.gpus)
    found, best = near_counts(load, old, slots, grid.gpus), replica_counts(load, slots, grid.gpus)
    level = max(*(load / best), LIGHT * load.sum() / grid.gpus)
    assert found.sum() == best.sum()
    assert 1 <= found.min() <= found.max() <= grid.gpus
    assert max(load / found) <= level * (1 + 1e-9)
    if old.sum() == slots and max(load / old) <= level:
        assert np.array_equal(found, old)


@pytest.mark.parametrize("budget", [None, 20, 8, 2, 0])
def test_a_warm_placement_keeps_its_budget_and_gains(budget):
    """No more slots than allowed change nodes, a third of them where no budget is given; a pass takes no longer."""
    first, second = (toys.trace(32, 4, GRID, 1600, 1, seed=seed) for seed in (0, 5))
    before = tokens_of(first.ids[0], 32, 0)
    old = joint(before, 40, GRID, balanced(before, 40, GRID), WEIGHTS, 20_000, 0)
    task, tokens = replace(TASK, budget=budget, horizon=1e9), tokens_of(second.ids[0], 32, 0)
    made = warm(tokens, task, old, WEIGHTS, 20_000)
    check(made, 32, GRID)
    moved = migration(old, made, GRID, TASK.rates, TASK.expert).between_nodes
    assert moved <= task.allowed == (13 if budget is None else budget)
    visited = [
        evaluate(placement, second.ids[0], second.src, 32, GRID, TASK.rates, TASK.expert).nodes_per_token
        for placement in (old, made)
    ]
    assert visited[1] <= visited[0]
    assert visited[1] < 0.97 * visited[0] or task.allowed < 8


def test_fetches_that_cost_more_than_they_save_are_not_made():
    """With one pass to pay a move back in, nothing comes from another node."""
    tokens = tokens_of(toys.trace(32, 4, GRID, 1600, 1).ids[0], 32, 0)
    old = balanced(tokens, 40, GRID)
    made = warm(tokens, replace(TASK, horizon=1.0, budget=40), old, WEIGHTS, 20_000)
    assert migration(old, made, GRID, TASK.rates, TASK.expert).between_nodes == 0


@pytest.mark.parametrize(
    ("trials", "warm_start", "taken"),
    [
        ({"eplb_global": (10.0, 1.1, 0), "joint": (9.0, 1.11, 0)}, False, "joint"),
        ({"eplb_global": (10.0, 1.1, 0), "joint": (9.9, 1.4, 0)}, False, "eplb_global"),  # uneven by 0.3: dearer
        ({"eplb_global": (10.0, 1.1, 0), "joint": (10.01, 1.0, 0)}, False, "eplb_global"),  # never slower than EPLB
        ({"one": (9.0, 1.2, 0), "other": (9.03, 1.1, 0)}, False, "other"),  # about as fast, and more even
        ({"old": (9.0, 1.2, 0), "warm": (8.999, 1.1, 30)}, True, "old"),  # about as fast, and nothing moves
        ({"old": (9.0, 1.2, 0), "warm": (8.0, 1.3, 30)}, True, "warm"),
        ({"old": (9.0, 1.2, 0), "eplb_global": (np.inf, 1.0, 99)}, True, "old"),  # over the budget
    ],
)
def test_the_member_that_is_taken(trials, warm_start, taken):
    """Time first; loads less even than EPLB's count as time; then evenness, or few moves from a placement in force."""
    assert pick({name: Trial(*trial, trial[0]) for name, trial in trials.items()}, 1.0, warm=warm_start) == taken
