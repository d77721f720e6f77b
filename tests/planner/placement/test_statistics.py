"""Numbers of the report, each worked out another way."""

import numpy as np
import pytest

from planner.placement.base import Grid, even
from planner.placement.costs import migration
from planner.placement.portfolio import place
from planner.placement.statistics import _coactivation, drift, migrations, noise_floor, statistics, traffic
from planner.placement.task import Task
from tests.planner.placement import toys

GRID = Grid(4, 2)
TRACE = toys.trace(32, 4, GRID, tokens=800, layers=3)
TASK = Task(40, GRID, toys.RATES, toys.EXPERT, 32, most=2000)


@pytest.fixture(scope="module")
def answers():
    """Placements of TRACE."""
    return place(TRACE, TASK)


@pytest.fixture(scope="module")
def found(answers):
    """Their statistics."""
    return statistics(TRACE, answers, TASK)


def test_chance_alone_unbalances_as_much_as_the_floor_says():
    """Choices thrown at 16 GPUs at random: the mean balance of many throws is within a fifth of what the floor adds."""
    rng = np.random.default_rng(0)
    throws = rng.multinomial(4000, np.full(16, 1 / 16), size=200)
    balance = throws.max(axis=1).mean() / (4000 / 16)
    assert noise_floor(4000, 16) - 1 == pytest.approx(balance - 1, rel=0.35)
    assert noise_floor(4000, 16) > balance
    assert noise_floor(16_000, 16) - 1 == pytest.approx((noise_floor(4000, 16) - 1) / 2)


def test_traffic_counts_one_copy_per_node():
    """Tokens of node 0: one stays, one goes to node 1 twice but in one copy; a token of node 1 visits both."""
    gpu = np.array([[0, 1], [2, 3], [1, 2]])
    assert traffic(gpu, np.array([0, 1, 3]), Grid(2, 2)).tolist() == [[1, 1], [1, 1]]


def test_moves_are_those_of_the_cost(answers):
    """As many fetches as the migration's cost counts, those between nodes off the diagonal."""
    new = answers[0].placement
    old, _ = toys.renamed(new, GRID, 3)
    table = migrations(old, new, GRID)
    cost = migration(old, new, GRID, toys.RATES, toys.EXPERT)
    assert table.sum() == cost.moved
    assert table.sum() - np.trace(table) == cost.between_nodes
    assert migrations(new, new, GRID).sum() == 0


def test_a_neighbour_is_asked_first():
    """GPU 1 lacks expert 0, which GPUs 0 and 2 hold: it comes from GPU 0 of its own node."""
    old = even(np.array([0, 1, 0, 2]), np.array([0, 1, 2, 3]))
    new = even(np.array([0, 0, 1, 2]), np.array([0, 1, 2, 3]))
    assert migrations(old, new, Grid(2, 2)).tolist() == [[1, 1], [0, 0]]


def test_drift_is_the_share_of_tokens_that_other_experts_get():
    """Halves with no expert in common are 1 apart, equal ones 0; without sequences stretches stand in."""
    ids = np.repeat([[0], [1]], 64, axis=0)
    assert drift(ids, np.arange(128), 2)[0] == 1.0
    assert drift(ids, None, 2)[0] == 1.0
    assert drift(ids, np.arange(128), 2)[1] < 0.3
    assert drift(np.tile([[0], [1]], (64, 1)), np.arange(128), 2)[0] == 0.0


def test_loads_and_traffic_agree_with_the_metrics(answers, found):
    """The fullest GPU drawn is the balance reported, and the traffic is the nodes a token visits."""
    answer = next(answer for answer in answers if answer.layer == found["layer"])
    assert max(found["gpu_load"]["after"]) == pytest.approx(answer.metrics.balance, abs=1e-4)
    assert max(found["gpu_load"]["before"]) == pytest.approx(answer.baseline["eplb_global"].balance, abs=1e-4)
    visits = np.sum(found["node_traffic"]["after"]) / found["tokens"]
    assert visits == pytest.approx(answer.metrics.nodes_per_token)
    assert np.mean(found["expert_load"]) == pytest.approx(1.0, abs=1e-3)
    assert sum(found["replicas"]) == 40
    assert found["migration"] is None


def test_co_activation_is_a_lift(found):
    """Experts 0 and 1 always come together, in half of the tokens: twice as often as by chance; never with 2 or 3."""
    ids = np.repeat([[0, 1], [2, 3]], 10, axis=0)
    placement = even(np.array([3, 1, 2, 0]), np.array([0, 1, 2, 3]))
    made = _coactivation(ids, placement, Task(4, Grid(2, 2), toys.RATES, toys.EXPERT, 4))
    assert made == {
        "experts": [1, 3, 0, 2],  # by node, and in it by number
        "node": [0, 0, 1, 1],
        "lift": [[0, 0, 2, 0], [0, 0, 0, 2], [2, 0, 0, 0], [0, 2, 0, 0]],
    }
    lift = np.array(found["coactivation"]["lift"])
    assert np.array_equal(lift, lift.T)
    assert found["coactivation"]["node"] == sorted(found["coactivation"]["node"])


def test_each_layer_has_its_skew(found):
    """One row a layer: the largest load over the mean, its spread, and how far halves are apart."""
    assert [row["layer"] for row in found["layers"]] == [0, 1, 2]
    load = toys.loads(TRACE.ids[1], 32)
    assert found["layers"][1]["largest"] == pytest.approx(load.max() / load.mean(), abs=1e-4)
    assert all(0 <= row["drift"] <= 1 for row in found["layers"])
