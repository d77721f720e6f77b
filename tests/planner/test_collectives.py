"""Collectives on the tiers of a cluster: limits, orders and who is near whom."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprofiles import load
from planner.collectives.all_reduce import all_reduce
from planner.collectives.all_to_all import all_to_all, distinct
from planner.collectives.base import Group, members, path
from planner.collectives.hierarchical import hierarchical_all_reduce
from planner.collectives.point_to_point import point_to_point
from planner.collectives.ring import all_gather, reduce_scatter, ring_all_reduce
from planner.collectives.tree import tree_all_reduce

TIERS = load.cluster("h100-superpod", gpus=1024).tiers
OPERATIONS = (
    all_gather,
    reduce_scatter,
    ring_all_reduce,
    tree_all_reduce,
    hierarchical_all_reduce,
    all_reduce,
    point_to_point,
)
POWERS = st.sampled_from([2**k for k in range(11)])
operations = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda f: f.__name__)


def dispatch(volume, way):
    """All-to-all of rows of 1 byte to 8 experts."""
    return all_to_all(volume, 1.0, 8.0, way)


def where(size, stride=1):
    """The path of a group on 1,024 GPUs."""
    return path(Group(size, stride), TIERS)


@pytest.mark.parametrize("operation", [*OPERATIONS, dispatch], ids=lambda f: f.__name__)
def test_a_group_of_one_takes_no_time(operation):
    """Nothing is sent when a rank is alone."""
    assert operation(1e9, where(1)) == 0.0


@operations
@given(size=POWERS, stride=POWERS, volume=st.floats(1.0, 1e12), factor=st.floats(1.0, 1e3))
def test_more_bytes_are_never_faster(operation, size, stride, volume, factor):
    """Time is monotone in the volume, wherever the group lies."""
    stride = min(stride, 1024 // size)
    assert operation(volume * factor, where(size, stride)) >= operation(volume, where(size, stride))


@pytest.mark.parametrize("operation", [*OPERATIONS, dispatch], ids=lambda f: f.__name__)
def test_numbers_and_arrays_agree(operation):
    """A batch of groups takes the bits that each takes alone."""
    cases = [(size, stride, volume) for size in (1, 2, 8, 16, 64) for stride in (1, 2, 8) for volume in (1e3, 1e8)]
    sizes, strides, volumes = (np.array(column) for column in zip(*cases, strict=True))
    together = operation(volumes, where(sizes, strides))
    alone = [operation(volume, where(size, stride)) for size, stride, volume in cases]
    assert np.broadcast_to(together, (len(cases),)).tolist() == [float(x) for x in alone]


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_tiny_ring_costs_its_latency(size):
    """With no bytes a ring inside a node takes the launch and one hop for each other rank; tree ranks by its depth."""
    tier = TIERS[0]
    assert all_gather(0.0, where(size)) == pytest.approx(tier.launch + (size - 1) * tier.latency)
    assert ring_all_reduce(0.0, where(size)) == pytest.approx(tier.launch + 2 * (size - 1) * tier.latency)
    assert tree_all_reduce(0.0, where(size)) == pytest.approx(tier.launch + 2 * np.log2(size) * tier.latency)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_huge_ring_runs_at_its_bandwidth(size):
    """With endless bytes (n - 1) / n of them pass each link, twice for an all-reduce."""
    volume = 1e18
    rate = TIERS[0].bandwidth * TIERS[0].efficiency
    share = (size - 1) / size
    assert all_gather(volume, where(size)) == pytest.approx(volume * share / rate, rel=1e-4)
    assert reduce_scatter(volume, where(size)) == pytest.approx(volume * share / rate, rel=1e-4)
    assert ring_all_reduce(volume, where(size)) == pytest.approx(2 * volume * share / rate, rel=1e-4)
    assert point_to_point(volume, where(size)) == pytest.approx(volume / rate, rel=1e-4)


def test_a_ring_across_nodes_uses_the_nic_of_every_member():
    """Eight members in a node drive eight NICs, a group with one member per node drives one."""
    nic = TIERS[1].bandwidth * TIERS[1].efficiency
    node = TIERS[0].bandwidth * TIERS[0].efficiency
    assert where(16, 1).rate == pytest.approx(min(node, 8 * nic))
    assert where(16, 8).rate == pytest.approx(nic)
    assert where(16, 1).flow == pytest.approx(nic)


@given(size=POWERS, stride=POWERS, volume=st.floats(1.0, 1e12))
def test_all_reduce_is_the_fastest_of_its_algorithms(size, stride, volume):
    """The library's choice never loses to ring, tree or hierarchical, and is one of them."""
    way = where(size, min(stride, 1024 // size))
    times = [float(f(volume, way)) for f in (ring_all_reduce, tree_all_reduce, hierarchical_all_reduce)]
    assert all_reduce(volume, way) == min(times)


@given(size=POWERS, stride=POWERS)
def test_members_match_the_lists_of_ranks(size, stride):
    """Ranks of one group inside one domain, counted over every group of an aligned placement."""
    stride = min(stride, 1024 // size)
    group = Group(size, stride)
    for domain in (1, 2, 8, 32, 256, 1024):
        span = size * stride
        starts = [block + offset for block in range(0, 1024, span) for offset in range(stride)]
        most = 0
        for start in starts:
            ranks = start + stride * np.arange(size)
            most = max(most, int(np.bincount(ranks // domain).max()))
        assert members(group, domain) == most


@given(st.integers(1, 64), st.integers(1, 8))
def test_distinct_matches_its_closed_form_in_small(boxes, draws):
    """The expectation obeys its recurrence: a draw hits a new box with the share of boxes not yet hit."""
    expected = 0.0
    for _ in range(draws):
        expected += 1.0 - expected / boxes
    assert distinct(boxes, draws) == pytest.approx(expected, rel=1e-12)
    assert distinct(boxes, draws) <= min(boxes, draws) * (1 + 1e-12)


def test_distinct_matches_a_draw_of_lots():
    """Ten thousand tokens that choose 8 of 32 nodes at random hit as many as the formula says."""
    hits = np.random.default_rng(7).integers(0, 32, size=(10_000, 8))
    seen = np.mean([len(set(row)) for row in hits.tolist()])
    assert distinct(32, 8) == pytest.approx(seen, rel=0.01)


@pytest.mark.parametrize("size", [16, 64, 256])
def test_deduplication_saves_bytes_between_nodes(size):
    """A dispatch across nodes is no slower than one copy per expert's rank would be over the same NICs."""
    tokens, width, topk = 1e6, 14336.0, 8
    nic = TIERS[1].bandwidth * TIERS[1].efficiency
    naive = tokens * width * distinct(size, topk) * (1 - 8 / size) / nic
    found = all_to_all(tokens, width, topk, where(size)) - all_to_all(0.0, width, topk, where(size))
    assert 0.0 < found <= naive * (1 + 1e-9)
    assert found >= tokens * width * distinct(size / 8, topk) * (1 - 8 / size) / nic * (1 - 1e-9)


@given(size=st.sampled_from([16, 64, 512]))
def test_a_plain_all_to_all_sends_every_copy(size):
    """Not merged, all copies cross the network whose experts lie outside the node; merged, fewer do."""
    tokens, width, topk = 1e6, 14336.0, 8
    nic = TIERS[1].bandwidth * TIERS[1].efficiency
    way = where(size)
    plain = all_to_all(tokens, width, topk, way, merged=False) - all_to_all(0.0, width, topk, way, merged=False)
    assert plain == pytest.approx(tokens * width * topk * (1 - 8 / size) / nic)
    assert plain > all_to_all(tokens, width, topk, way) - all_to_all(0.0, width, topk, way)


@pytest.mark.parametrize("operation", [all_gather, ring_all_reduce, dispatch], ids=lambda f: f.__name__)
def test_leaving_a_node_costs(operation):
    """The same volume takes longer once the group spans nodes."""
    times = [float(operation(1e8, where(size))) for size in (8, 16, 128)]
    assert all(a < b for a, b in pairwise(times))


def test_ranks_that_share_cores_wait_in_every_step():
    """Two ranks on two cores pay one hop of the core; four pay three hops of the scheduler, and reduce in a ring."""
    cores, slices = load.cluster("cpu-loopback", 4).tiers
    two, four = (path(Group(size, 1), (cores, slices)) for size in (2, 4))
    assert (two.hops, bool(two.lockstep)) == (cores.latency, False)
    assert (float(four.hops), bool(four.lockstep)) == (3 * slices.latency, True)
    assert all_reduce(0.0, four) == ring_all_reduce(0.0, four) == slices.launch + 6 * slices.latency
    batch = path(Group(np.array([2, 4]), np.array([1, 1])), (cores, slices))
    assert all_reduce(1e6, batch).tolist() == [float(all_reduce(1e6, way)) for way in (two, four)]
