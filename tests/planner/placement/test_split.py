"""Tokens split over replicas batch by batch: quotas, and who serves whom within them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.placement import split
from planner.placement.base import Grid, even
from planner.placement.joint import Tokens, balanced, tokens_of
from tests.planner.placement import toys


@given(toys.layers(), st.integers(0, 2**32))
def test_both_splits_serve_every_token(case, seed):
    """Quotas are non-negative and sum to each expert's tokens; water-filling is never better than the program."""
    grid, planned, slots = case
    experts = planned.size
    placement = balanced(Tokens(np.zeros((1, 2), dtype=np.int64), planned), slots, grid)
    load = np.random.default_rng(seed).integers(0, 500, size=experts).astype(float)
    fullest = {}
    for way in (split.least, split.poured):
        quota = way(placement, load, grid.gpus)
        assert quota.min() >= 0.0
        served = np.bincount(placement.slot_expert, weights=quota, minlength=experts)
        assert served == pytest.approx(load, abs=1e-6)
        fullest[way] = np.bincount(placement.slot_gpu, weights=quota, minlength=grid.gpus).max()
    equal = toys.gpu_loads(even(placement.slot_expert, placement.slot_gpu), load, grid).max()
    assert fullest[split.least] <= min(fullest[split.poured], equal) + 1e-6


def test_water_finds_the_level_of_the_program():
    """On a layer whose replicas link all GPUs both level the loads to a part in a thousand."""
    grid = Grid(4, 2)
    tokens = tokens_of(toys.trace(16, 2, grid, 1600, 1).ids[0], 16, 0)
    placement = balanced(tokens, 24, grid)
    fullest = [
        np.bincount(placement.slot_gpu, weights=way(placement, tokens.load, 8), minlength=8).max()
        for way in (split.least, split.poured)
    ]
    assert fullest[1] == pytest.approx(fullest[0], rel=1e-3)


@pytest.mark.parametrize("ranks", [1, 8])
def test_tokens_are_served_within_the_quotas(ranks):
    """Each choice by a slot of its expert; a slot's tokens exceed its quota by less than one a rank."""
    grid = Grid(4, 2)
    trace = toys.trace(16, 2, grid, 1600, 1)
    ids = trace.ids[0]
    load = toys.loads(ids, 16)
    placement = balanced(tokens_of(ids, 16, 0), 24, grid)
    quota = split.poured(placement, load, 8)
    slots = split.serve(placement, ids, trace.src, quota, 2, ranks)
    assert np.array_equal(placement.slot_expert[slots], ids)
    assert (np.bincount(slots.ravel(), minlength=24) - quota).max() < ranks


def test_a_rank_needs_no_other_rank():
    """What a rank's tokens are served by does not change with the tokens of the others, quotas being equal."""
    grid = Grid(2, 2)
    trace = toys.trace(8, 2, grid, 400, 1)
    ids = trace.ids[0]
    placement = balanced(tokens_of(ids, 8, 0), 12, grid)
    quota = split.poured(placement, toys.loads(ids, 8), 4)
    order = np.lexsort((np.arange(400), trace.src != 2))  # the tokens of rank 2 first
    whole = split.serve(placement, ids, trace.src, quota, 2, 4)
    sorted_ = split.serve(placement, ids[order], trace.src[order], quota, 2, 4)
    assert np.array_equal(whole[order], sorted_)


def test_tokens_stay_where_they_are_when_they_may():
    """A replica on the token's own node is used while its quota lasts, whichever slot is listed first."""
    placement = even(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 3]))
    ids = np.tile([[0, 2]], (10, 1))
    quota = np.array([5.0, 5.0, 0.0, 10.0])
    slots = split.serve(placement, ids, np.full(10, 3), quota, 2, 4)
    assert (slots[:5, 0] == 1).all()  # node 1 has the token and expert 2
    assert (slots[5:, 0] == 0).all()
