import functools

import pytest

pytest.importorskip("torch")

from executor.check import check, compare
from hwprofiles import load
from planner.record import Check
from planner.rules import Case, broken
from tests.executor import grid
from tests.executor.grid import GRID, WORKLOAD, Row, model

TOLERANCE = 1e-5
HALF = 3e-2  # of bf16, whose values have 8 bits
CURVES = (("zero3", "adam"), ("zb-h1", "sgd"), ("dp-pp", "adam"), ("tp-ep", "adam"), ("placement", "sgd"))
ROWS = {row.name: row for row in GRID}


@pytest.fixture(scope="module")
def alone(pool):
    """What one process measures, once for each model and micro-batch."""

    @functools.cache
    def measured(function, shape, micro_batch, *arguments):
        row = Row("alone", shape, 1, {"micro_batch": micro_batch})
        return pool.run(function, row, *arguments, ranks=1)[0]

    return lambda function, row, *arguments: measured(function, row.shape, row.degrees.micro_batch, *arguments)


def test_the_grid_is_legal_and_wide():
    """Forty plans and more, all of them legal for the planner, on 1, 2, 4 and 8 ranks."""
    assert len(ROWS) == len(GRID) >= 40
    assert {row.ranks for row in GRID} == {1, 2, 4, 8}
    for row in GRID:
        case = Case(model(row.shape), load.cluster("cpu-loopback", row.ranks), WORKLOAD, row.chosen, row.degrees)
        assert (row.name, broken(case)) == (row.name, [])


@pytest.mark.parametrize("row", GRID, ids=lambda row: row.name)
def test_loss_and_all_gradients_equal_one_process(pool, alone, row):
    """A plan computes what one process computes with the same micro-batches."""
    found = pool.run(grid.gradients, row, ranks=row.ranks)[0]
    error = compare(alone(grid.gradients, row), found)
    assert error.loss_error <= TOLERANCE
    assert error.gradient_error <= TOLERANCE


@pytest.mark.parametrize(("name", "optimizer"), CURVES)
def test_training_follows_the_same_curve(pool, alone, name, optimizer):
    """Losses and gradient norms of 20 clipped steps are those of one process, on every rank."""
    row = ROWS[name]
    curves = pool.run(grid.curve, row, optimizer, 20, ranks=row.ranks)
    assert all(each == curves[0] for each in curves)
    expected = alone(grid.curve, row, optimizer, 20)
    for (loss, norm), (wanted_loss, wanted_norm) in zip(curves[0], expected, strict=True):
        assert loss == pytest.approx(wanted_loss, rel=1e-4)
        assert norm == pytest.approx(wanted_norm, rel=1e-2)


@pytest.mark.parametrize("name", ["zero3", "tp-pp", "ring", "ep"])
def test_half_precision_is_near_one_process(pool, alone, name):
    """In bf16 the rounding differs with the order of sums, no more; and it is not fp32."""
    row = ROWS[name]
    found = pool.run(grid.half, row, ranks=row.ranks)[0]
    error = compare(alone(grid.half, row), found)
    assert error.gradient_error <= HALF
    assert error.loss_error <= HALF / 10
    assert compare(alone(grid.gradients, row), found).gradient_error > 100 * TOLERANCE


def test_check_finds_a_plan_right(pool):
    """The check of `plan run --check`, on a plan of three axes."""
    row = ROWS["pp-ep"]
    found = check(pool, model(row.shape), row.degrees, row.chosen, WORKLOAD)
    assert isinstance(found, Check)
    assert max(found.loss_error, found.gradient_error) <= TOLERANCE


def test_compare_sees_what_is_wrong(pool, alone):
    """A gradient that is off, missing or zero for one of the two is reported."""
    loss, gradients = alone(grid.gradients, ROWS["one"])
    name = next(iter(gradients))
    off = {**gradients, name: gradients[name] * 1.5}
    assert compare((loss, gradients), (loss * 1.25, off)) == Check(pytest.approx(0.25), pytest.approx(0.5))
    missing = {key: value for key, value in gradients.items() if key != name}
    assert compare((loss, gradients), (loss, missing)).gradient_error == float("inf")
    silent = {**gradients, name: gradients[name] * 0.0}
    assert compare((loss, silent), (loss, gradients)).gradient_error == float("inf")
