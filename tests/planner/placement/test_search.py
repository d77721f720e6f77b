"""The local search against every arrangement, against an exact mixed-integer program, and against itself."""

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from planner.placement.anneal import Problem, Weights, anneal
from planner.placement.base import Grid, check, even
from planner.placement.joint import balanced, items_of, joint, start_nodes, tokens_of
from tests.planner.placement import toys

MOVES = 4000
NODES_ONLY = Weights(0.0, 0.0)


def overload(values):
    """How far values exceed their mean, summed."""
    return np.maximum(values - values.mean(), 0.0).sum()


def energy(ids, node, nodes, weights):
    """What the search minimizes, counted plainly, for experts without replicas."""
    visits = np.array([(node[ids] == n).any(axis=1).sum() for n in range(nodes)], dtype=float)
    load = np.bincount(node[ids].ravel(), minlength=nodes)
    return visits.sum() + weights.visits * overload(visits) + weights.load * overload(load)


def searched(ids, experts, nodes, weights, seed=0, **options):
    """The node of each expert after a search from the first nodes filled first."""
    problem = Problem(ids, np.arange(experts), nodes, 1)
    start = np.repeat(np.arange(nodes), experts // nodes)
    return anneal(problem, start, weights, MOVES, seed, **options)


def toy(experts, topk, seed, tokens=48):
    """Few tokens with friendly experts."""
    return toys.trace(experts, topk, Grid(2, 1), tokens, 1, seed=seed).ids[0]


@pytest.mark.parametrize("weights", [NODES_ONLY, Weights(0.0, 1.0), Weights(0.5, 0.5)], ids=["nodes", "load", "both"])
@pytest.mark.parametrize(("experts", "topk", "nodes"), [(6, 2, 2), (6, 3, 3), (8, 3, 2)])
def test_the_search_finds_the_best_of_all_arrangements(experts, topk, nodes, weights):
    """On toys it ends at the least energy that any arrangement has."""
    for seed in range(3):
        ids = toy(experts, topk, seed)
        best = min(energy(ids, node, nodes, weights) for node in toys.arrangements(experts, nodes))
        found = searched(ids, experts, nodes, weights)
        assert energy(ids, found, nodes, weights) == pytest.approx(best)


def fewest_nodes(ids, experts, nodes):
    """Nodes visited in the best placement, by a mixed-integer program: x[e, n] experts, y[t, n] >= x[e, n] visits."""
    tokens, topk = ids.shape
    x = np.arange(experts * nodes).reshape(experts, nodes)
    y = x.size + np.arange(tokens * nodes).reshape(tokens, nodes)
    variables = x.size + y.size
    each = coo_array((np.ones(x.size), (np.repeat(np.arange(experts), nodes), x.ravel())), shape=(experts, variables))
    full = coo_array((np.ones(x.size), (np.tile(np.arange(nodes), experts), x.ravel())), shape=(nodes, variables))
    rows = np.arange(tokens * topk * nodes)
    visit, item = np.repeat(y, topk, axis=0).ravel(), x[ids.ravel()].ravel()
    data = np.concatenate([np.ones(rows.size), -np.ones(rows.size)])
    seen = coo_array((data, (np.tile(rows, 2), np.concatenate([visit, item]))), shape=(rows.size, variables))
    room = experts // nodes
    solved = milp(
        np.concatenate([np.zeros(x.size), np.ones(y.size)]),
        constraints=[LinearConstraint(each, 1, 1), LinearConstraint(full, room, room), LinearConstraint(seen, 0, 1)],
        integrality=np.concatenate([np.ones(x.size), np.zeros(y.size)]),
        bounds=Bounds(0, 1),
    )
    assert solved.status == 0
    return solved.fun


@pytest.mark.parametrize(("experts", "topk", "nodes"), [(8, 2, 2), (9, 3, 3), (12, 2, 3)])
def test_the_search_equals_the_exact_program(experts, topk, nodes):
    """What HiGHS proves to be the fewest nodes visited, the search finds."""
    ids = toy(experts, topk, 1, tokens=24)
    found = searched(ids, experts, nodes, NODES_ONLY)
    assert toys.touched(ids, found) == pytest.approx(fewest_nodes(ids, experts, nodes))


def test_downhill_never_ends_above_its_start():
    """Without heat the energy can only fall, from any start."""
    for seed in range(5):
        ids = toy(12, 3, seed, tokens=120)
        start = np.random.default_rng(seed).permutation(np.repeat(np.arange(3), 4))
        weights = Weights(0.5, 1.0)
        found = anneal(Problem(ids, np.arange(12), 3, 1), start, weights, 200, seed, heat=0.0)
        assert energy(ids, found, 3, weights) <= energy(ids, start, 3, weights)


def test_a_search_that_is_told_to_stay_stays():
    """With a weight that no gain outweighs, every item keeps its node."""
    ids = toy(8, 3, 0)
    start = np.tile(np.arange(2), 4)
    found = anneal(Problem(ids, np.arange(8), 2, 1), start, Weights(0.0, 1.0, keep=1e6), MOVES, 0)
    assert np.array_equal(found, start)


def test_no_node_gets_more_copies_than_it_may():
    """Replicas of one expert stay apart when a node may hold one copy."""
    expert = np.array([0, 0, 1, 1, 2, 3, 4, 5])
    items = np.random.default_rng(0).integers(8, size=(60, 2))
    start = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    found = anneal(Problem(items, expert, 2, 1), start, Weights(0.0, 1.0), MOVES, 0)
    for both in (found[:2], found[2:4]):
        assert sorted(both.tolist()) == [0, 1]


def test_the_seed_decides():
    """The same seed gives the same nodes, another one may give others, and the energy is as good."""
    ids = toy(24, 4, 0, tokens=240)
    one, same = (searched(ids, 24, 4, Weights(0.0, 1.0), seed=3) for _ in range(2))
    other = searched(ids, 24, 4, Weights(0.0, 1.0), seed=4)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert toys.touched(ids, other) == pytest.approx(toys.touched(ids, one), rel=0.05)


@pytest.mark.parametrize(
    ("experts", "slots", "nodes", "gpus"),
    [(16, 16, 4, 2), (16, 24, 4, 2), (16, 23, 2, 3), (8, 13, 3, 1), (6, 24, 2, 2)],
)
@pytest.mark.parametrize("linked", [False, True])
def test_a_joint_placement_is_legal(experts, slots, nodes, gpus, linked):
    """Every expert has a slot, none is twice on a GPU, GPUs hold what the grid gives them, for any number of slots."""
    grid = Grid(nodes, gpus)
    tokens = tokens_of(toys.trace(experts, 2, grid, 240, 1).ids[0], experts, 0)
    start = balanced(tokens, slots, grid)
    made = joint(tokens, slots, grid, start, Weights(0.0, 1.0), 2000, 0, linked=linked)
    check(made, experts, grid)
    assert made.slots == slots
    assert len(set(toys.pairs(made))) == slots
    assert sorted(made.slot_gpu.tolist()) == grid.slots(slots).tolist()


def test_a_joint_placement_visits_fewer_nodes_than_balance_alone():
    """On tokens with friendly experts the search saves nodes; with its weight on load it also stays even."""
    grid = Grid(4, 2)
    trace = toys.trace(32, 4, grid, 1600, 1)
    tokens = tokens_of(trace.ids[0], 32, 0)
    start = balanced(tokens, 32, grid)
    made = joint(tokens, 32, grid, start, Weights(0.0, 1.0), 20_000, 0)
    node = [p.slot_gpu[np.argsort(p.slot_expert)] // grid.gpus_per_node for p in (start, made)]
    before, after = (toys.touched(tokens.ids, each) for each in node)
    assert after < 0.95 * before
    by_node = np.bincount(made.slot_gpu // 2, weights=tokens.load[made.slot_expert])
    assert by_node.max() / by_node.mean() < 1.05


def test_a_search_starts_where_the_placement_was():
    """Items take the nodes of a placement with the same replicas."""
    grid = Grid(3, 2)
    tokens = tokens_of(toys.trace(12, 2, grid, 240, 1).ids[0], 12, 0)
    expert = items_of(tokens, 12, grid)
    old = even(np.arange(12), np.random.default_rng(0).permutation(np.arange(12) // 2))
    assert np.array_equal(start_nodes(old, expert, tokens.load, grid), old.slot_gpu // 2)
