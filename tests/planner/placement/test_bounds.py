import itertools

import numpy as np
import pytest

from planner.placement.base import even
from planner.placement.bounds import balance_bound, nodes_bound
from planner.placement.split import least
from tests.planner.placement import toys


def few(experts, topk, tokens, seed):
    """Tokens with a taste: some pairs of experts are visited together more often than chance."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(0.0, 1.5, (3, experts))[rng.integers(3, size=tokens)]
    return np.argsort(-(taste + rng.gumbel(size=(tokens, experts))), axis=1)[:, :topk]


@pytest.mark.parametrize(("experts", "topk", "nodes"), [(6, 2, 2), (6, 3, 3), (8, 2, 2), (8, 4, 2), (6, 2, 3)])
def test_the_node_bound_is_never_above_the_best_placement(experts, topk, nodes):
    """All placements are tried: none visits fewer nodes than the bound says, and the bound is worth something."""
    for seed in range(3):
        ids = few(experts, topk, 40, seed)
        best = min(toys.touched(ids, node) for node in toys.arrangements(experts, nodes)) / 40
        bound = nodes_bound(ids, experts, experts // nodes, np.ones(experts, dtype=np.int64))
        assert 1.0 <= bound <= best + 1e-9
        assert bound >= 0.6 * best


def test_the_node_bound_holds_with_replicas():
    """Two spare slots on each of two nodes: no way to fill all slots beats the bound, tokens served as best they can.

    Each expert may also have a second replica; a token then goes to fewer nodes, never below the bound.
    """
    ids = few(4, 2, 30, 0)
    for spare in itertools.combinations(range(4), 2):
        replicas = np.ones(4, dtype=np.int64)
        replicas[list(spare)] += 1
        bound = nodes_bound(ids, 4, 3, replicas)
        best = min(_served(ids, held) for held in _fillings(replicas))
        assert bound <= best / 30 + 1e-9


def _fillings(replicas):
    """Ways to put the replicas of four experts on two nodes of three slots: the set on each node."""
    items = np.repeat(np.arange(4), replicas)
    for chosen in itertools.combinations(range(6), 3):
        yield set(items[list(chosen)].tolist()), set(np.delete(items, chosen).tolist())


def _served(ids, held):
    """Fewest nodes visited, summed over tokens: one where a node holds all of a token's experts."""
    return sum(1 if any(set(row) <= node for node in held) else 2 for row in ids.tolist())


def test_one_expert_a_token_visits_one_node():
    """With topk 1 there is nothing to bound, and a bound is never under one node."""
    assert nodes_bound(np.array([[0], [1]]), 2, 1, np.ones(2, dtype=np.int64)) == 1.0
    together = np.tile([[0, 1]], (9, 1))
    assert nodes_bound(together, 4, 2, np.ones(4, dtype=np.int64)) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(6))
def test_the_balance_bound_is_never_above_the_best_placement(seed):
    """All placements of four slots on two GPUs, replicas sharing as best they can: none is more even than the bound."""
    load = np.random.default_rng(seed).lognormal(0.0, 1.0, 3)
    bound = balance_bound(load, 4, 2)
    achieved = []
    for spare in range(3):
        expert = np.array([0, 1, 2, spare])
        for gpus in itertools.product(range(2), repeat=4):
            placement = even(expert, np.array(gpus))
            on_gpu = np.bincount(placement.slot_gpu, weights=least(placement, load, 2), minlength=2)
            achieved.append(on_gpu.max() / on_gpu.mean())
    assert bound <= min(achieved) + 1e-9


@pytest.mark.parametrize(
    ("load", "slots", "gpus", "bound"),
    [
        ([6.0, 1, 1], 3, 2, 1.5),  # nobody helps the expert of load 6
        ([6.0, 1, 1], 4, 2, 1.0),  # a second replica does
        ([1.0] * 8, 8, 4, 1.0),
        ([9.0, 1, 1, 1, 2, 2], 6, 2, 11 / 8),  # no replicas, three experts a GPU: two of load 1 stand beside 9
        ([10.0, 2, 2, 2], 5, 4, 1.25),  # two replicas of 5 against a mean of 4
    ],
)
def test_the_balance_bound_worked_by_hand(load, slots, gpus, bound):
    """The largest load that one slot must carry, over the mean of the GPUs."""
    assert balance_bound(np.array(load), slots, gpus) == pytest.approx(bound)
