import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.placement.base import Grid, check
from planner.placement.bounds import balance_bound
from planner.placement.joint import Tokens, balanced
from planner.placement.replicas import bound_level, improve, pack, replica_counts
from tests.planner.placement import toys


def tokens_with(load):
    """Planning tokens that nobody looks at, with these loads."""
    return Tokens(np.zeros((1, 2), dtype=np.int64), load)


@pytest.mark.parametrize("seed", range(12))
def test_replica_counts_are_the_best_there_are(seed):
    """No way to give out the slots has a smaller largest load per replica; all ways are tried."""
    rng = np.random.default_rng(seed)
    experts, slots, most = 4, int(rng.integers(4, 11)), int(rng.integers(3, 6))
    load = rng.lognormal(0.0, 1.2, experts)
    ways = itertools.product(range(1, most + 1), repeat=experts)
    best = min(max(load / np.array(way)) for way in ways if sum(way) <= slots)
    count = replica_counts(load, slots, most)
    assert count.sum() == min(slots, experts * most)
    assert count.min() >= 1
    assert count.max() <= most
    assert max(load / count) == pytest.approx(best)


@given(toys.layers())
def test_a_slot_more_never_raises_the_largest_load_per_replica(case):
    """More replicas are never worse: neither the load of the heaviest replica nor the bound of the balance."""
    grid, load, slots = case
    heaviest = [max(load / replica_counts(load, slots + more, grid.gpus)) for more in range(4)]
    bound = [balance_bound(load, slots + more, grid.gpus) for more in range(4)]
    assert heaviest == sorted(heaviest, reverse=True)
    assert all(later <= before * (1 + 1e-12) for before, later in itertools.pairwise(bound))


def test_counts_of_a_whole_layer_take_every_slot():
    """384 experts on 768 slots: all are given out, and what is heaviest per replica is what the bound says."""
    load = np.random.default_rng(0).lognormal(0.0, 1.0, 384)
    count = replica_counts(load, 768, 384)
    assert count.sum() == 768
    assert max(load / count) == pytest.approx(bound_level(load, 768))


def test_experts_without_tokens_keep_a_slot():
    """An expert that nobody visits still has one slot, whatever the others need; all zero is no fault either."""
    assert replica_counts(np.array([9.0, 0.0, 0.0]), 5, 3).tolist() == [3, 1, 1]
    assert replica_counts(np.zeros(3), 5, 2).sum() == 5


@given(toys.layers())
def test_a_balanced_placement_is_legal(case):
    """Every expert has a slot, no GPU holds one twice, GPUs hold what the grid gives them, and bounds hold."""
    grid, load, slots = case
    made = balanced(tokens_with(load), slots, grid)
    check(made, load.size, grid)
    assert made.slots == slots
    assert len(set(toys.pairs(made))) == slots
    assert sorted(made.slot_gpu.tolist()) == grid.slots(slots).tolist()
    on_gpu = toys.gpu_loads(made, load, grid)
    assert on_gpu.max() / on_gpu.mean() >= balance_bound(load, slots, grid.gpus) * (1 - 1e-9)


@pytest.mark.parametrize(("experts", "slots", "nodes"), [(256, 288, 4), (256, 320, 5), (160, 256, 4)])
def test_many_slots_a_gpu_leave_the_bound_within_two_thousandths(experts, slots, nodes):
    """From 8 slots a GPU on, the plan's balance is within 1.002 of its lower bound."""
    grid = Grid(nodes, 8)
    for seed in range(4):
        load = np.random.default_rng(seed).lognormal(0.0, 0.7, experts)
        on_gpu = toys.gpu_loads(balanced(tokens_with(load), slots, grid), load, grid)
        assert on_gpu.max() / on_gpu.mean() <= 1.002 * balance_bound(load, slots, grid.gpus)


def test_slots_that_do_not_divide_over_the_gpus_are_placed():
    """288 slots on 256 GPUs: 32 GPUs get a second one, four on each node, and no expert meets itself."""
    grid = Grid(8, 32)
    load = np.random.default_rng(1).lognormal(0.0, 1.0, 256)
    made = balanced(tokens_with(load), 288, grid)
    count = np.bincount(made.slot_gpu, minlength=256)
    assert sorted(set(count.tolist())) == [1, 2]
    assert (count.reshape(8, 32).sum(axis=1) == 36).all()
    assert len(set(toys.pairs(made))) == 288


@given(st.lists(st.floats(0.1, 100.0), min_size=4, max_size=12), st.integers(2, 4))
def test_packing_is_within_its_bound(weights, bins):
    """The fullest bin holds at most a whole item more than the mean of the bins, as for longest-first packing."""
    load = np.array(weights[: len(weights) // bins * bins])
    room = np.full(bins, load.size // bins)
    place = pack(load, np.arange(load.size), room)
    fill = np.bincount(place, weights=load, minlength=bins)
    assert np.array_equal(np.bincount(place, minlength=bins), room)
    assert fill.max() <= load.sum() / bins + load.max() + 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_packing_is_near_the_best_of_all(seed):
    """Six items on three bins of two: the fullest is at most a sixth fuller than in the best of all packings."""
    load = np.random.default_rng(seed).lognormal(0.0, 0.8, 6)
    place = pack(load, np.arange(6), np.array([2, 2, 2]))
    best = min(np.bincount(way, weights=load).max() for way in toys.arrangements(6, 3))
    assert np.bincount(place, weights=load).max() <= best * 7 / 6


def test_a_swap_never_fills_the_fullest_bin_further():
    """Swaps only lower the fullest bin and never put an expert beside itself."""
    rng = np.random.default_rng(3)
    expert = np.repeat(np.arange(8), 2)
    load = rng.lognormal(0.0, 1.0, 16)
    place = np.tile(np.arange(4), 4)
    before = np.bincount(place, weights=load).max()
    swapped = improve(load, expert, place, 4)
    assert np.bincount(swapped, weights=load).max() < before
    assert len(set(zip(expert.tolist(), swapped.tolist(), strict=True))) == 16


def test_replicas_of_one_expert_go_to_different_bins():
    """Where greedy packing ends with an expert twice in a bin, a swap takes one out."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        bins = int(rng.integers(2, 5))
        count = rng.integers(1, bins + 1, size=int(rng.integers(3, 9)))
        count[: -count.sum() % bins] += 1
        expert = np.repeat(np.arange(count.size), np.minimum(count, bins))
        room = np.bincount(np.arange(expert.size) % bins, minlength=bins)
        load = rng.lognormal(0.0, 1.0, count.size)[expert]
        place = pack(load, expert, room)
        assert len(set(zip(expert.tolist(), place.tolist(), strict=True))) == expert.size
