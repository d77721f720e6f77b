import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.placement import eplb
from planner.placement.base import Grid, check

# The example of the README of deepseek-ai/EPLB: two layers of 12 experts, 16 slots, 4 groups, 2 nodes of 4 GPUs.
LOADS = (
    (90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86),
    (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27),
)
PUBLISHED = (
    (5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1),
    (7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1),
)


@pytest.mark.parametrize("layer", [0, 1])
def test_the_published_example_comes_out(layer):
    """The hierarchical policy places the balancer's own example slot by slot as its README shows."""
    made = eplb.hierarchical(np.array(LOADS[layer], dtype=float), 16, Grid(2, 4), 4)
    assert tuple(made.slot_expert.tolist()) == PUBLISHED[layer]
    assert made.slot_gpu.tolist() == [slot // 2 for slot in range(16)]


def test_the_hierarchical_policy_worked_by_hand():
    """Groups 9, 7, 8, 12: the last and the second to node 0, the others to node 1; then longest first, two a GPU."""
    made = eplb.hierarchical(np.array([8.0, 1, 4, 3, 2, 6, 5, 7]), 8, Grid(2, 2), 4)
    assert made.slot_expert.tolist() == [7, 3, 6, 2, 0, 1, 5, 4]


def test_the_global_policy_worked_by_hand():
    """Expert 0 of load 10 gets both spare slots; GPU 1 takes two of its replicas: this policy allows that."""
    made = eplb.global_policy(np.array([10.0, 4, 3, 2]), 6, Grid(1, 2))
    assert made.slot_expert.tolist() == [1, 0, 3, 0, 0, 2]
    assert made.share.tolist() == pytest.approx([1, 1 / 3, 1, 1 / 3, 1 / 3, 1])


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3))
def test_groups_stay_whole_on_a_node(seed, nodes, gpus):
    """Hierarchical: legal, and no group of experts is on two nodes."""
    grid, groups = Grid(nodes, gpus), 2 * nodes
    load = np.random.default_rng(seed).lognormal(0.0, 1.0, 2 * gpus * groups)
    made = eplb.hierarchical(load, load.size + grid.gpus, grid, groups)
    check(made, load.size, grid)
    group, node = made.slot_expert // (2 * gpus), made.slot_gpu // gpus
    assert len(set(zip(group.tolist(), node.tolist(), strict=True))) == groups


@pytest.mark.parametrize(
    ("slots", "groups", "whole", "any_"),
    [(16, 4, True, True), (16, 1, False, True), (16, 3, False, True), (17, 4, False, False), (16, 6, False, True)],
)
def test_where_the_policies_are_defined(slots, groups, whole, any_):
    """Slots must divide over the GPUs; the hierarchical policy needs groups that divide over nodes and experts."""
    assert eplb.hierarchical_fits(16, slots, Grid(2, 4), groups) is whole
    assert eplb.global_fits(slots, Grid(2, 4)) is any_
