"""Small cases for the tests of placement: traces with a pattern, hypothesis strategies, searches through everything."""

import itertools

import numpy as np
from hypothesis import strategies as st

from planner.placement.base import Expert, Grid, Placement, Rates, Trace, even

RATES = Rates()
EXPERT = Expert(64, 32)


def trace(experts, topk, grid, tokens=480, layers=2, cv=0.5, seed=0):
    """Tokens in sequences of 8 whose experts come in friendly pairs, so that placement has something to find."""
    rng = np.random.default_rng(seed)
    liking = rng.normal(0.0, 1.5, (tokens // 8, 4)) @ rng.normal(0.0, 1.0, (4, experts))
    liking = np.repeat(liking, 8, axis=0)
    pull = np.log(rng.gamma(1 / cv**2, cv**2, (layers, 1, experts)) + 0.05)
    score = liking + pull + rng.gumbel(size=(layers, tokens, experts))
    ids = np.argsort(-score, axis=2)[:, :, :topk]
    seq = np.arange(tokens) // 8
    return Trace(ids, seq % grid.gpus, experts, seq, tuple(range(layers)))


def loads(ids, experts):
    """Tokens of each expert [experts] as floats."""
    return np.bincount(ids.ravel(), minlength=experts).astype(float)


def gpu_loads(placement, load, grid):
    """Load of each GPU [gpus] when replicas serve by share."""
    served = load[placement.slot_expert] * placement.share
    return np.bincount(placement.slot_gpu, weights=served, minlength=grid.gpus)


def touched(ids, node):
    """Nodes visited, summed over tokens, when expert e stands on node[e] alone."""
    return sum(len(set(row)) for row in node[ids].tolist())


def arrangements(experts, nodes):
    """Every way to put equally many experts on each node: node of each expert."""
    each = experts // nodes
    for order in set(itertools.permutations(np.repeat(np.arange(nodes), each).tolist())):
        yield np.array(order)


def pairs(placement):
    """The (expert, GPU) pairs of a placement."""
    return list(zip(placement.slot_expert.tolist(), placement.slot_gpu.tolist(), strict=True))


def renamed(placement, grid, seed):
    """The same placement with nodes, and rails of GPUs across nodes, under other names; and the new name of each."""
    rng = np.random.default_rng(seed)
    rail = rng.permutation(grid.gpus_per_node)
    name = (rng.permutation(grid.nodes)[:, None] * grid.gpus_per_node + rail).ravel()
    return Placement(placement.slot_expert, name[placement.slot_gpu], placement.share), name


@st.composite
def layers(draw):
    """A grid, loads of experts and a number of slots that they fit in."""
    grid = Grid(draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    experts = draw(st.integers(2, 16))
    slots = draw(st.integers(experts, experts * min(grid.gpus, 3)))
    weight = st.floats(0.01, 1000.0)
    load = np.array(draw(st.lists(weight, min_size=experts, max_size=experts)))
    return grid, load, slots


@st.composite
def placements(draw):
    """A grid and a legal placement on it, replicas sharing unevenly, and the number of experts."""
    grid, load, slots = draw(layers())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spare = rng.integers(load.size, size=slots - load.size)
    expert = rng.permutation(np.concatenate([np.arange(load.size), spare]))
    share = rng.random(slots) + 0.1
    total = np.bincount(expert, weights=share, minlength=load.size)
    made = even(expert, rng.integers(grid.gpus, size=slots))
    return grid, Placement(made.slot_expert, made.slot_gpu, share / total[expert]), load.size
