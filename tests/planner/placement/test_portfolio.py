"""The portfolio as a whole: legal, judged on tokens it never saw, beside EPLB, and the same for the same seed."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from planner.placement import portfolio
from planner.placement.base import Grid, Trace, check
from planner.placement.costs import migration
from planner.placement.evaluate import evaluate
from planner.placement.portfolio import place
from planner.placement.task import Task
from tests.planner.placement import toys

GRID = Grid(4, 2)
TRACE = toys.trace(32, 4, GRID, tokens=1600, layers=2)
TASK = Task(40, GRID, toys.RATES, toys.EXPERT, 32, groups=4)


@pytest.fixture(scope="module")
def answers():
    """The answers to TASK on TRACE."""
    return place(TRACE, TASK)


def same(one, other):
    """Whether two answers place alike."""
    return all(
        np.array_equal(getattr(a.placement, name), getattr(b.placement, name))
        for a, b in zip(one, other, strict=True)
        for name in ("slot_expert", "slot_gpu", "share")
    )


def test_each_layer_gets_a_legal_placement(answers):
    """One answer a layer, in order; every expert has a slot, no GPU holds one twice, all slots are used."""
    assert [answer.layer for answer in answers] == [0, 1]
    for answer in answers:
        check(answer.placement, 32, GRID)
        assert answer.placement.slots == 40
        assert answer.placement.slot_gpu.tolist() == GRID.slots(40).tolist()
        assert len(set(toys.pairs(answer.placement))) == 40


def test_metrics_are_those_of_the_held_out_half(answers):
    """What is reported is what the evaluator says of the other half of the sequences, for the baselines too."""
    plan, test = TRACE.halves(TASK.seed)
    for layer, answer in enumerate(answers):
        found = evaluate(answer.placement, test.ids[layer], test.src, 32, GRID, TASK.rates, TASK.expert)
        assert asdict(answer.metrics) == asdict(found)
        seen = evaluate(answer.placement, plan.ids[layer], plan.src, 32, GRID, TASK.rates, TASK.expert)
        assert asdict(answer.metrics) != asdict(seen)
        assert set(answer.baseline) == {"eplb_global", "eplb_hierarchical"}


def test_bounds_lie_below_what_is_achieved(answers):
    """No answer and no baseline is more even, or visits fewer nodes, than the bounds allow."""
    for answer in answers:
        for metrics in (answer.metrics, *answer.baseline.values()):
            assert answer.bounds["balance"] <= metrics.balance + 1e-9
        assert 1.0 <= answer.bounds["nodes_per_token"] <= answer.metrics.nodes_per_token + 1e-9


def test_held_out_tokens_take_no_longer_than_with_eplb(answers):
    """Mean time of the layers, against the better of EPLB's policies: shorter here, where experts have friends."""
    ours = np.mean([answer.metrics.layer_s for answer in answers])
    theirs = [np.mean([answer.baseline[name].layer_s for answer in answers]) for name in answers[0].baseline]
    assert ours <= min(theirs)
    assert np.mean([a.metrics.nodes_per_token for a in answers]) < np.mean(
        [a.baseline["eplb_global"].nodes_per_token for a in answers]
    )


def test_an_even_trace_is_placed_no_worse_than_eplb_places_it():
    """Nearly even loads without friends: nothing to win, and nothing is lost beyond noise."""
    rng = np.random.default_rng(0)
    ids = np.argsort(rng.random((1, 1600, 32)), axis=2)[:, :, :4]
    found = place(Trace(ids, np.arange(1600) % 8, 32), TASK)[0]
    best = min(metrics.layer_s for metrics in found.baseline.values())
    assert found.metrics.layer_s <= 1.02 * best


def test_the_same_seed_gives_the_same_placement(answers):
    """Byte for byte the same again; another seed holds other sequences out."""
    assert same(answers, place(TRACE, TASK))
    assert not same(answers, place(TRACE, replace(TASK, seed=1)))


def test_any_number_of_slots_is_placed():
    """Where slots don't divide over the GPUs EPLB has no policy, and a placement is found all the same."""
    found = place(TRACE, replace(TASK, slots=37))[0]
    check(found.placement, 32, GRID)
    assert found.placement.slots == 37
    assert found.baseline == {}


def test_loads_alone_are_enough():
    """One expert a token, as from a load snapshot: each visits one node, and where only GEMMs cost, loads are even."""
    ids = np.random.default_rng(0).zipf(1.6, size=(1, 40_000, 1)) % 32
    rates = replace(toys.RATES, nic=1e15, nvlink=1e15, alpha=0.0)
    found = place(Trace(ids, np.arange(40_000) % 8, 32), replace(TASK, rates=rates))[0]
    assert found.metrics.nodes_per_token == found.bounds["nodes_per_token"] == 1.0
    assert found.metrics.balance < 1.1 * found.bounds["balance"]


def test_a_single_node_is_a_matter_of_balance():
    """On one node there is no network to save; the answer is legal and even."""
    grid = Grid(1, 8)
    found = place(TRACE, Task(40, grid, toys.RATES, toys.EXPERT, 32))[0]
    check(found.placement, 32, grid)
    assert found.metrics.nodes_per_token == 1.0
    assert found.metrics.balance <= found.baseline["eplb_global"].balance + 0.05


def test_an_old_placement_is_changed_no_more_than_it_pays(answers):
    """Moves are counted against the old placement, and a short horizon moves fewer slots than a long one."""
    drifted = toys.trace(32, 4, GRID, tokens=1600, layers=2, seed=5)
    old = tuple(answer.placement for answer in answers)
    moved = []
    for horizon in (1.0, 1e9):
        found = place(drifted, replace(TASK, old=old, horizon=horizon))
        for answer, before in zip(found, old, strict=True):
            count = migration(before, answer.placement, GRID, TASK.rates, TASK.expert)
            assert (answer.moved, answer.moved_between_nodes) == (count.moved, count.between_nodes)
        moved.append(sum(answer.moved for answer in found))
    assert moved[0] <= moved[1]
    assert moved[0] == 0
    assert moved[1] > 0


@pytest.mark.parametrize("budget", [0, 4])
def test_a_budget_of_moves_is_kept(answers, budget):
    """No layer has more slots change nodes than it may."""
    drifted = toys.trace(32, 4, GRID, tokens=1600, layers=2, seed=5)
    old = tuple(answer.placement for answer in answers)
    found = place(drifted, replace(TASK, old=old, budget=budget, horizon=1e9))
    assert max(answer.moved_between_nodes for answer in found) <= budget


def test_tokens_split_per_batch_are_more_even(answers):
    """When the dispatcher splits each batch over the replicas, held-out loads are more even than with fixed shares."""
    found = place(TRACE, replace(TASK, slots=48, per_batch=True))
    fixed = place(TRACE, replace(TASK, slots=48))
    assert np.mean([a.metrics.balance for a in found]) < np.mean([a.metrics.balance for a in fixed])


def test_progress_is_told():
    """Each layer is announced, after the choice of the algorithm."""
    told = []
    portfolio.place(TRACE, TASK, lambda what, done, of: told.append((what, done, of)))
    assert ("placing layers", 1, 2) in told
    assert told[0][0] == "choosing an algorithm"
