"""Made-up traces: legal, repeatable, as skewed and as clustered as they say."""

import numpy as np
import pytest

from planner.errors import InputError
from planner.placement.base import Grid
from planner.placement.io import checked
from planner.placement.scenario import SCENARIOS, Router, make
from planner.placement.statistics import drift
from tests.planner.placement import toys

GRID = Grid(2, 2)
ROUTER = Router(64, 6)


def skew(trace, layer=0):
    """Coefficient of variation of the loads."""
    load = toys.loads(trace.ids[layer], trace.experts)
    return load.std() / load.mean()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_a_sound_trace(name):
    """It passes every check of a trace from a file; each GPU sends as many tokens; all experts see some."""
    trace = make(name, ROUTER, GRID, layers=2, tokens=4096)
    assert trace.ids.shape == (2, 4096, 6)
    again = checked(trace.ids, trace.src, trace.seq, trace.layers, 64, GRID.gpus, name)
    assert np.array_equal(again.ids, trace.ids)
    assert np.bincount(trace.src).tolist() == [1024] * 4
    assert all(np.unique(trace.src[trace.seq == seq]).size == 1 for seq in range(8))
    assert toys.loads(trace.ids[0], 64).min() > 0


def test_a_scenario_repeats_by_its_seed():
    """The same seed is the same trace; another is another."""
    one, same, other = (make("zipf", ROUTER, GRID, 1, 1024, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.ids, same.ids)
    assert not np.array_equal(one.ids, other.ids)


def test_loads_are_as_skewed_as_the_scenario_says():
    """Balanced stays near a coefficient of variation of 0.15, a domain near 1, Zipf gives a hottest expert."""
    found = {name: make(name, ROUTER, GRID, 1, 16_384) for name in SCENARIOS}
    assert skew(found["balanced"]) == pytest.approx(0.15, abs=0.06)
    assert 0.75 <= skew(found["domain"]) <= 1.2
    load = toys.loads(found["zipf"].ids[0], 64)
    assert 4.0 <= load.max() / load.mean() <= 9.0


def test_experts_have_friends():
    """Some pairs are chosen together far oftener than by chance, which is what a placement can use."""
    trace = make("balanced", ROUTER, GRID, 1, 8192)
    visits = np.zeros((8192, 64))
    np.put_along_axis(visits, trace.ids[0], 1.0, axis=1)
    together, load = visits.T @ visits, visits.sum(axis=0)
    lift = (together * 8192 / np.outer(load, load))[np.triu_indices(64, 1)]
    assert np.quantile(lift, 0.9) > 1.5
    assert np.median(lift) < 1.1


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_a_token_keeps_to_its_groups(kept):
    """With groups, a token's experts are in at most as many as are open to it, and some tokens use all of them."""
    trace = make("balanced", Router(64, 6, 8, kept), GRID, 1, 1024)
    groups = [len(set(row)) for row in (trace.ids[0] // 8).tolist()]
    assert max(groups) == kept


def test_the_groups_with_the_two_best_experts_are_open():
    """Group 1 has the best expert, group 0 the best two: a token that may use one group goes to group 0."""
    score = np.array([[4.0, 4.0, 0.0, 5.0, 1.0, 0.0]])
    assert set(Router(6, 2, 2, 1).choose(score)[0].tolist()) == {0, 1}
    assert set(Router(6, 2).choose(score)[0].tolist()) in ({3, 0}, {3, 1})


def test_drift_is_zipf_some_time_later():
    """Drift resembles zipf of the same seed, and not as much as zipf resembles itself."""
    before, later = (make(name, ROUTER, GRID, 1, 8192) for name in ("zipf", "drift"))
    loads = [toys.loads(trace.ids[0], 64) for trace in (before, later)]
    assert 0.5 < np.corrcoef(*loads)[0, 1] < 0.98
    both = np.concatenate([before.ids[0], later.ids[0]])
    seq = np.concatenate([before.seq, later.seq + before.seq.max() + 1])
    moved, chance = drift(both, seq, 64)
    assert moved > 2 * chance
    assert drift(before.ids[0], before.seq, 64)[0] < 2 * drift(before.ids[0], before.seq, 64)[1]


@pytest.mark.parametrize(
    ("router", "words"),
    [
        (Router(8, 9), "--topk.*8 experts"),
        (Router(8, 5, 4, 2), "--topk.*4 experts"),
        (Router(8, 2, 4, 5), "--topk-groups.*1 to 4"),
        (Router(4, 2, 4, 2), "two experts in a group"),
    ],
)
def test_a_router_that_cannot_be_is_refused(router, words):
    """More choices than experts open to a token, or groups that don't work out."""
    with pytest.raises(InputError, match=words):
        make("balanced", router, GRID, 1, 1024)
