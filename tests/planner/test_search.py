"""The search against brute force: every legal candidate of a small space, one by one through `estimate`."""

from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest

from planner.estimate import estimate
from planner.rules import broken, rules
from planner.search.pareto import best, frontier
from planner.search.space import SWEPT, Space, combinations, fixed, whole_space
from planner.search.sweep import sweep
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import DENSE, LATENT, MOE, TIED, case, legal, setting

VALUES = {
    "tp": (1, 2),
    "pp": (1, 3, 4),
    "cp": (1, 2),
    "ep": (1, 2, 4),
    "etp": (1, 2),
    "micro_batch": (1, 2),
    "vpp": (1, 2),
    "replicas": (0, -2),  # over all ranks, and in two copies
}
CHOICES = {
    "schedule": ("1f1b", "interleaved"),
    "recompute": ("none", "full"),
    "zero": (0, 3),
    "order": ("tp-cp-ep-dp-pp", "tp-cp-ep-pp-dp"),
}
SHAPES = (DENSE, MOE, LATENT, TIED)


def small(shape):
    """A setting of 8 GPUs and its space."""
    where = setting(shape, 8, workload=Workload(1024, 16, 1e9))
    values = dict(VALUES) if shape.experts else {**VALUES, "ep": (1,), "etp": (1,)}
    return where, Space(values, CHOICES)


def run(where, space, objective="time", top=10):
    """The sweep of a space."""
    return sweep(case(where, Degrees(where.cluster.gpus)), where, space, objective, top, where.gpu.hbm_capacity)


def brute(where, space):
    """(time, peak, choice, degrees) of each legal candidate, by plain loops."""
    world = where.cluster.gpus
    axes = [axis for axis in space.values if axis != "replicas"]
    for number, choices in enumerate(combinations(space, where.choices)):
        there = replace(where, choices=choices)
        for values in product(*(space.values[axis] for axis in axes)):
            for copies in (1, 2) if choices.zero else (1,):
                degrees = Degrees(world, replicas=copies, **dict(zip(axes, values, strict=True)))
                if not broken(case(there, degrees)):
                    found = estimate(there, degrees)
                    yield float(found.step.total), float(found.peak), number, degrees


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: shape.name)
def both(request):
    """A setting, its space, brute force and the sweep with everything kept."""
    where, space = small(request.param)
    every = list(brute(where, space))
    return where, space, every, run(where, space, top=10**6)


def key(degrees):
    """A plan's degrees as a tuple."""
    return tuple(int(getattr(degrees, field.name)) for field in fields(Degrees))


def test_the_sweep_prices_each_legal_candidate_to_the_bit(both):
    """Nothing legal is missing, nothing is counted twice, and each has the time and memory of its own estimate."""
    _, _, every, found = both
    expected = {(choice, *key(degrees)): (time, peak) for time, peak, choice, degrees in every}
    assert len(expected) == len(every) == found.legal
    got = {
        (int(found.best.choice[i]), *key(found.best.degrees.take(i))): (found.best.time[i], found.best.peak[i])
        for i in range(len(found.best.time))
    }
    assert got == expected


def test_the_best_is_the_brute_force_optimum(both):
    """Least time, and least memory when that is the aim."""
    where, space, every, found = both
    assert found.best.time[0] == min(time for time, *_ in every)
    assert np.all(np.diff(found.best.time) >= 0.0)
    assert run(where, space, "memory").best.peak[0] == min(peak for _, peak, *_ in every)


def test_the_frontier_is_the_brute_force_pareto_set(both):
    """Exactly the (time, memory) pairs that no other candidate beats."""
    _, _, every, found = both
    points = sorted({(time, peak) for time, peak, *_ in every})
    expected, lowest = [], np.inf
    for time, peak in points:
        if peak < lowest:
            expected.append((time, peak))
            lowest = peak
    assert list(zip(found.frontier.time.tolist(), found.frontier.peak.tolist(), strict=True)) == expected


def test_the_leanest_needs_least_memory(both):
    """The plan named when nothing fits is the one of least memory."""
    _, _, every, found = both
    assert found.leanest.peak[0] == min(peak for _, peak, *_ in every)


def test_two_runs_are_equal():
    """The same question has the same answer, bit by bit and in order, although threads share the work."""
    where, space = small(MOE)
    one, two = run(where, space), run(where, space)
    for a, b in ((one.best, two.best), (one.frontier, two.frontier)):
        assert a.time.tolist() == b.time.tolist()
        assert a.choice.tolist() == b.choice.tolist()
        assert [key(a.degrees.take(i)) for i in range(len(a.time))] == [
            key(b.degrees.take(i)) for i in range(len(b.time))
        ]
    assert (one.legal, one.fitting, one.tally.dropped) == (two.legal, two.fitting, two.tally.dropped)


def test_a_fixed_axis_is_held():
    """`fixed` leaves only plans with that value, and no fewer of them than the whole space has."""
    where, space = small(MOE)
    every = run(where, space, top=10**6)
    held = run(where, fixed(space, {"tp": 2, "zero": 3, "replicas": 2}), top=10**6)
    assert held.legal > 0
    assert set(np.unique(held.best.degrees.tp)) == {2}
    assert set(np.unique(held.best.degrees.replicas)) == {2}
    assert {choice.zero for choice in held.choices} == {3}
    zero = np.array([choice.zero for choice in every.choices])[every.best.choice]
    same = (every.best.degrees.tp == 2) & (every.best.degrees.replicas == 2) & (zero == 3)
    assert held.legal == int(same.sum())


def test_a_plan_that_needs_more_than_the_gpu_holds_is_left_out():
    """Only plans that fit are ranked; those that don't are legal but not fitting."""
    where, space = small(DENSE)
    peaks = sorted(peak for _, peak, *_ in brute(where, space))
    middle = peaks[len(peaks) // 2]
    gpu = replace(where.gpu, hbm_capacity=middle)
    found = run(replace(where, cluster=replace(where.cluster, gpu=gpu)), space, top=10**6)
    assert found.fitting == sum(peak <= middle for peak in peaks) == len(found.best.time)
    assert found.legal == len(peaks)
    assert found.best.peak.max() == middle


def test_each_drop_is_under_a_rule():
    """The tally names the rules of the table; a space with one illegal value drops it."""
    where, _ = small(DENSE)
    here = case(where, Degrees(8))
    space = fixed(whole_space(here, 2), {"tp": 3})
    found = run(where, space)
    assert found.legal == 0
    assert set(found.tally.dropped) <= {rule.name for name in SWEPT for rule in rules(Choices(schedule=name))}
    assert found.tally.dropped["world"] == len(space.values["pp"]) * len(space.values["cp"])


def test_the_whole_space_holds_only_divisors():
    """Values that could never be legal aren't tried."""
    where, _ = small(MOE)
    values = whole_space(case(where, Degrees(8)), 2).values
    assert values["tp"] == (1, 2, 4, 8)
    assert values["ep"] == (1, 2, 4, 8)
    assert values["micro_batch"] == (1, 2)


@pytest.mark.parametrize("schedule", SWEPT)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_whole_space_leaves_out_nothing_legal(shape, schedule):
    """Every value of each axis that some legal plan has is among those tried (8 GPUs, so tp stays in the domain)."""
    where = setting(shape, 8, Choices(schedule=schedule), Workload(1024, 64, 1e9))
    values = whole_space(case(where, Degrees(8)), 2).values
    rows = legal(shape, where)
    for axis in ("tp", "pp", "cp", "ep", "etp", "vpp", "micro_batch"):
        assert set(np.unique(getattr(rows, axis)).tolist()) <= set(values[axis]), axis


def test_ties_go_to_less_memory_then_to_the_first():
    """`best` orders by the first key, the second, then the position."""
    first = np.array([2.0, 1.0, 1.0, 1.0, 3.0])
    second = np.array([0.0, 5.0, 4.0, 4.0, 0.0])
    assert best(first, second, 4).tolist() == [2, 3, 1, 0]
    assert best(first, second, 99).tolist() == [2, 3, 1, 0, 4]


def test_the_frontier_keeps_one_of_equals():
    """Of equal points one stays, and a point that only ties in one key is beaten."""
    time = np.array([1.0, 1.0, 2.0, 2.0, 3.0])
    memory = np.array([5.0, 5.0, 5.0, 4.0, 9.0])
    assert frontier(time, memory).tolist() == [0, 3]
