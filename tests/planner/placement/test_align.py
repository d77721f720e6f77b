import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.placement.align import align
from planner.placement.base import Expert, Grid, Rates, even
from planner.placement.costs import migration, replica_sync
from planner.placement.evaluate import evaluate
from planner.placement.joint import Tokens, balanced
from tests.planner.placement import toys

GRID = Grid(2, 2)
SIZE = Expert(hidden=10, ffn=10, param_bytes=2.0, optimizer_bytes=12.0)  # 300 parameters, 4,200 bytes
SLOW = Rates(nic=4200.0)


def planned(load, slots, grid):
    """A balanced placement."""
    return balanced(Tokens(np.zeros((1, 2), dtype=np.int64), load), slots, grid)


def crews(placement, grid, per_place):
    """The sorted contents of each GPU (per_place 1) or node, in no order."""
    held = [[] for _ in range(grid.gpus // per_place)]
    for e, g in toys.pairs(placement):
        held[g // per_place].append(e)
    return sorted(tuple(sorted(crew)) for crew in held)


@given(toys.layers(), st.integers(0, 2**32))
def test_align_only_renames(case, seed):
    """GPUs and nodes hold together what they held; balance and nodes per token stay; no more slots move."""
    grid, load, slots = case
    rng = np.random.default_rng(seed)
    old, new = planned(load, slots, grid), planned(rng.permutation(load), slots, grid)
    found = align(new, old, load.size, grid)
    for per_place in (1, grid.gpus_per_node):
        assert crews(found, grid, per_place) == crews(new, grid, per_place)
    assert np.array_equal(np.bincount(found.slot_gpu), np.bincount(old.slot_gpu))
    ids = np.argsort(rng.random((40, load.size)), axis=1)[:, :2]
    if found.slots == load.size:  # with replicas, which of them serves a token follows the order of the slots
        src = rng.integers(grid.gpus, size=40)
        one, other = (evaluate(p, ids, src, load.size, grid, toys.RATES, toys.EXPERT) for p in (found, new))
        assert one.balance == other.balance
        assert one.nodes_per_token == other.nodes_per_token
    moved, before = (migration(old, p, grid, toys.RATES, toys.EXPERT) for p in (found, new))
    assert moved.between_nodes <= before.between_nodes


@given(toys.layers(), st.integers(0, 2**32))
def test_a_renamed_placement_is_found_again(case, seed):
    """Aligned with itself under other names, nothing moves."""
    grid, load, slots = case
    slots -= slots % grid.gpus  # GPUs of one size may trade all names
    old = planned(load, max(slots, -(-load.size // grid.gpus) * grid.gpus), grid)
    other, _ = toys.renamed(old, grid, seed)
    assert migration(old, align(other, old, load.size, grid), grid, toys.RATES, toys.EXPERT).moved == 0


def test_migration_counts_what_a_gpu_lacks():
    """Expert 0 goes to its neighbour on the node, expert 3 to the other node: two fetches, one over the network."""
    old = even(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 3]))
    new = even(np.array([3, 0, 2, 1]), np.array([0, 1, 2, 1]))
    found = migration(old, new, GRID, SLOW, SIZE)
    assert (found.moved, found.between_nodes) == (2, 1)
    assert found.seconds == pytest.approx(1.0)


def test_nothing_moves_to_the_same_place():
    """A placement against itself costs nothing, in whatever order its slots are listed."""
    old = even(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 3]))
    same = even(np.array([3, 1, 0, 2]), np.array([3, 1, 0, 2]))
    found = migration(old, same, GRID, SLOW, SIZE)
    assert (found.moved, found.between_nodes, found.seconds) == (0, 0, 0.0)


def test_fetches_are_spread_over_the_holders():
    """Two GPUs of node 1 fetch expert 0, two of node 0 hold it: each sends one, so it takes the time of one fetch."""
    old = even(np.array([0, 0, 1, 2]), np.array([0, 1, 2, 3]))
    new = even(np.array([0, 0, 1, 2, 0, 0]), np.array([0, 1, 2, 3, 2, 3]))
    assert migration(old, new, GRID, SLOW, SIZE).seconds == pytest.approx(1.0)


def test_replicas_sum_their_gradients_on_rings():
    """Two GPUs share expert 0: each passes 2 · ½ · 300 parameters of 2 B; without replicas, or on one GPU, none."""
    two = even(np.array([0, 1, 0]), np.array([0, 1, 2]))
    assert replica_sync(two, GRID, SLOW, SIZE) == pytest.approx(600.0 / 4200.0)
    alone = even(np.array([0, 1]), np.array([0, 1]))
    beside = even(np.array([0, 1, 0]), np.array([0, 1, 0]))
    assert replica_sync(alone, GRID, SLOW, SIZE) == replica_sync(beside, GRID, SLOW, SIZE) == 0.0
