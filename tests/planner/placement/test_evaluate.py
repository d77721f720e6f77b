from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import InputError
from planner.placement.base import Expert, Grid, Placement, Rates, check, even
from planner.placement.evaluate import evaluate, serve
from tests.planner.placement import toys

# Two nodes of two GPUs, expert e on GPU e. Tokens 0 and 1 come from GPU 0, token 2 from GPU 1, token 3 from GPU 3.
GRID = Grid(2, 2)
ONE_EACH = even(np.arange(4), np.arange(4))
IDS = np.array([[0, 1], [2, 3], [1, 2], [0, 2]])
SRC = np.array([0, 0, 1, 3])
RATES = Rates(nic=50.0, nvlink=400.0, alpha=0.5, flops=9000.0, dispatch_bytes=1.0, combine_bytes=2.0)
EXPERT = Expert(hidden=100, ffn=10)


def test_a_case_worked_by_hand():
    """Loads 2, 2, 3, 1; tokens 2 and 3 cross to a second node; each NIC carries one copy, GPU 3 forwards two.

    Dispatch 0.5 + 100 B / 50 B/s, combine twice the bytes; GEMM 6 · 100 · 10 · 3 / 9000.
    """
    found = evaluate(ONE_EACH, IDS, SRC, 4, GRID, RATES, EXPERT)
    assert asdict(found) == pytest.approx(
        {
            "balance": 1.5,
            "node_balance": 1.0,
            "nodes_per_token": 1.5,
            "remote_nodes": 0.75,
            "nic_bytes": 100.0,
            "nvlink_bytes": 200.0,
            "all_to_all_s": 2.5 + 4.5,
            "gemm_s": 2.0,
            "layer_s": 9.0,
        }
    )


def test_one_nic_for_a_node_carries_what_its_gpus_send():
    """With a NIC per node, node 0 sends the copies of tokens 1 and 2 over the same one."""
    found = evaluate(ONE_EACH, IDS, SRC, 4, Grid(2, 2, nics=1), RATES, EXPERT)
    assert found.nic_bytes == 200.0
    assert found.all_to_all_s == pytest.approx(2 * 0.5 + 200 / 50 + 400 / 50)


def test_a_token_at_home_costs_no_network():
    """Tokens whose experts are all on their own GPU cost two latencies and the GEMM."""
    found = evaluate(ONE_EACH, np.arange(4)[:, None], np.arange(4), 4, GRID, RATES, EXPERT)
    assert (found.remote_nodes, found.nic_bytes, found.nvlink_bytes) == (0.0, 0.0, 0.0)
    assert found.all_to_all_s == pytest.approx(1.0)
    assert found.balance == 1.0


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9, 1.0])
def test_replicas_serve_by_their_share(share):
    """Of 1,000 tokens a slot gets its share to within two, wherever its expert stands in the row."""
    placement = Placement(np.array([0, 1, 0]), np.array([0, 1, 1]), np.array([share, 1.0, 1.0 - share]))
    ids = np.where(np.random.default_rng(0).random((1000, 1)) < 0.5, [[0, 1]], [[1, 0]])
    slots = serve(placement, ids, 2)
    assert np.array_equal(placement.slot_expert[slots], ids)
    assert abs((slots == 0).sum() - 1000 * share) <= 2


@given(toys.placements(), st.integers(0, 2**32))
def test_every_choice_is_served_by_a_slot_of_its_expert(case, seed):
    """Whatever the placement and its shares, a slot holds the expert that it serves."""
    _, placement, experts = case
    ids = np.argsort(np.random.default_rng(seed).random((50, experts)), axis=1)[:, :2]
    assert np.array_equal(placement.slot_expert[serve(placement, ids, experts)], ids)


@given(toys.placements(), st.integers(0, 2**32))
def test_names_of_gpus_do_not_matter(case, seed):
    """Nodes and rails under other names, sources too: every metric is the same."""
    grid, placement, experts = case
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((60, experts)), axis=1)[:, :2]
    src = rng.integers(grid.gpus, size=60)
    other, name = toys.renamed(placement, grid, seed)
    before = evaluate(placement, ids, src, experts, grid, toys.RATES, toys.EXPERT)
    after = evaluate(other, ids, name[src], experts, grid, toys.RATES, toys.EXPERT)
    assert asdict(after) == pytest.approx(asdict(before), rel=1e-12)


@given(toys.placements(), st.integers(0, 2**32))
def test_metrics_keep_their_bounds(case, seed):
    """Balance is 1 at least, a token visits one to topk nodes, and the layer is the sum of its parts."""
    grid, placement, experts = case
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((40, experts)), axis=1)[:, :2]
    found = evaluate(placement, ids, rng.integers(grid.gpus, size=40), experts, grid, toys.RATES, toys.EXPERT)
    assert 1.0 <= found.node_balance <= found.balance <= grid.gpus
    assert found.remote_nodes <= found.nodes_per_token <= min(2, grid.nodes)
    assert found.layer_s == found.all_to_all_s + found.gemm_s


def test_slower_parts_never_make_a_layer_faster():
    """Half the bandwidth or the FLOP/s, and the time of the layer grows."""
    base = evaluate(ONE_EACH, IDS, SRC, 4, GRID, RATES, EXPERT).layer_s
    for slower in (replace(RATES, nic=25.0), replace(RATES, flops=4500.0), replace(RATES, alpha=1.0)):
        assert evaluate(ONE_EACH, IDS, SRC, 4, GRID, slower, EXPERT).layer_s > base


@pytest.mark.parametrize(
    ("expert", "gpu", "share", "words"),
    [
        ([0, 1, 1], [0, 1, 2], [1, 0.5, 0.5], "missing"),
        ([0, 1, 2, 5], [0, 1, 2, 3], [1] * 4, r"slot_expert\[3\]"),
        ([0, 1, 2], [0, 1, 4], [1] * 3, r"slot_gpu\[2\]"),
        ([0, 1, 2, 2], [0, 1, 2, 3], [1, 1, 0.9, 0.2], "sum to 1"),
        ([0, 1, 2, 2], [0, 1, 2, 3], [1, 1, 1.5, -0.5], "non-negative"),
        ([0, 1, 2], [0, 1], [1] * 3, "as many entries"),
    ],
)
def test_an_impossible_placement_is_refused(expert, gpu, share, words):
    """An expert without a slot, ids that don't exist and shares that don't add up are named."""
    with pytest.raises(InputError, match=words):
        check(Placement(np.array(expert), np.array(gpu), np.array(share, dtype=float)), 3, GRID)
