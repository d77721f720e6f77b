"""The certified bound of nodes per token: below every placement there is, whatever multipliers it is made of."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.placement.relax import Rooms, _certificate, visits_bound
from tests.planner.placement import toys


def few(experts, topk, tokens, seed):
    """Tokens with a taste: some pairs of experts are visited together more often than chance."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(0.0, 1.5, (3, experts))[rng.integers(3, size=tokens)]
    return np.argsort(-(taste + rng.gumbel(size=(tokens, experts))), axis=1)[:, :topk]


def ways(room):
    """Every way to fill nodes with `room` [nodes] items: node of each item."""
    for order in set(itertools.permutations(np.repeat(np.arange(len(room)), room).tolist())):
        yield np.array(order)


def fullest(ids, node):
    """The load of the fullest node."""
    return np.bincount(node[ids].ravel()).max()


@pytest.mark.parametrize(
    ("room", "topk"), [((3, 3), 2), ((2, 2, 2), 3), ((4, 4), 4), ((2, 2, 2), 2), ((3, 2, 2), 3), ((4, 2), 3)]
)
def test_no_placement_visits_fewer_nodes(room, topk):
    """All ways to fill equal and unequal nodes are tried; the bound is below the best of them, and worth something."""
    for seed in range(3):
        ids = few(sum(room), topk, 40, seed)
        best = min(toys.touched(ids, node) for node in ways(room)) / 40
        bound = visits_bound(ids, sum(room), Rooms(len(room), min(room), max(room), np.inf))
        assert bound <= best + 1e-9
        assert bound >= 0.85 * best


@pytest.mark.parametrize("room", [(3, 3), (2, 2, 2), (3, 2, 2)])
def test_no_placement_as_even_visits_fewer_nodes(room):
    """Of the ways whose fullest node has no more load than the cap, none is below the bound; a lower cap raises it."""
    for seed in range(3):
        ids = few(sum(room), 2, 40, seed)
        found = [(fullest(ids, node), toys.touched(ids, node) / 40) for node in ways(room)]
        bounds = []
        for cap in sorted({load for load, _ in found})[:4]:
            best = min(visited for load, visited in found if load <= cap)
            bounds.append(visits_bound(ids, sum(room), Rooms(len(room), min(room), max(room), float(cap))))
            assert bounds[-1] <= best + 1e-9
        free = visits_bound(ids, sum(room), Rooms(len(room), min(room), max(room), np.inf))
        assert bounds[0] >= free - 0.02


@given(st.integers(0, 2**32), st.sampled_from([(2, 2, 2), (3, 2, 1), (4, 4), (1, 1, 1, 1)]))
def test_any_multipliers_give_a_bound(seed, room):
    """Random slopes and multipliers, a random placement, its own load as the cap: what they prove is true of it."""
    rng = np.random.default_rng(seed)
    number, topk = sum(room), int(rng.integers(2, min(5, sum(room)) + 1))
    ids = few(number, topk, 12, seed)
    node = rng.permutation(np.repeat(np.arange(len(room)), room))
    load = np.bincount(ids.ravel(), minlength=number).astype(float)
    value = 1.0 / np.arange(1, topk + 1)
    slopes, m = rng.uniform(-0.5, 0.1, ids.shape), rng.normal(0.0, rng.uniform(0.0, 3.0), (number, number))
    for cap in (np.inf, float(fullest(ids, node))):
        rooms = Rooms(len(room), min(room), max(room), cap)
        for spectral in (False, True):
            proved = _certificate(ids, value, slopes, m if spectral else 0 * m, load, rooms, spectral=spectral)
            assert proved <= toys.touched(ids, node) + 1e-6


def test_friends_that_fit_on_a_node_visit_one():
    """Tokens whose experts always come together: the bound is one node, as is the best placement."""
    ids = np.array([[0, 1], [2, 3]] * 8)
    assert visits_bound(ids, 4, Rooms(2, 2, 2, np.inf)) == pytest.approx(1.0)


def test_a_slot_a_node_visits_as_many_nodes_as_experts():
    """Nodes of one slot: every expert of a token is a node, and the bound says so."""
    ids = few(4, 3, 20, 0)
    assert visits_bound(ids, 4, Rooms(4, 1, 1, np.inf)) == pytest.approx(3.0)
