"""A recipe's training on many ranks beside the same training in one process."""

import functools
from dataclasses import replace

import pytest

pytest.importorskip("torch")

import torch

from executor.data import Order
from executor.data.text import text
from executor.optimizers.settings import EXCLUSIONS, Update
from executor.trainer import Trainer
from planner.shape import Shape, build
from planner.strategy import Choices, Degrees, Workload

TOLERANCE = 1e-4
STEPS = 100
WORK = Workload(seq_len=16, global_batch=4, tokens=1e6)
UPDATE = Update(learning_rate=3e-3, weight_decay=0.1, exclude=EXCLUSIONS)
LAYOUTS = {
    "DDP": (Degrees(2), {"zero": 0}),
    "FSDP": (Degrees(2), {"zero": 3}),
    "TP": (Degrees(2, tp=2), {"zero": 0}),
    "PP": (Degrees(2, pp=2), {"zero": 0}),
}
WIDE = {"TP and FSDP": (Degrees(4, tp=2), {"zero": 3}), "PP and ZeRO 1": (Degrees(4, pp=2), {"zero": 1})}


SIZES = {"family": "test", "layers": 2, "hidden": 16, "vocab": 256, "heads": 2, "ffn": 32}


@functools.cache
def model(experts):
    """A model of two layers over bytes, dense or with experts in the second."""
    more = {"experts": experts, "topk": 2, "moe_ffn": 16, "first_dense": 1} if experts else {}
    return build(Shape("tiny", **SIZES, **more))


def losses(optimizer, degrees, choices, steps, update=UPDATE, experts=0):
    """The loss of each step on real text, in the order that a seed gives."""
    data = text(None, "*", "text", WORK.seq_len, (0.0, 0.0)).train
    order = Order(len(data), 0)
    chosen = Choices(precision="fp32", optimizer=optimizer, **choices)
    trainer = Trainer(model(experts), degrees, chosen, WORK, update=update)
    found = []
    for step in range(steps):
        start = step * WORK.global_batch
        (tokens,) = data.take(order.numbers(start + trainer.rows.start, start + trainer.rows.stop))
        found.append(trainer.step(torch.from_numpy(tokens)))
    return found


@pytest.fixture(scope="module")
def alone(pool):
    """The losses of one process, once for each optimizer."""
    return functools.cache(lambda *run: pool.run(losses, run[0], Degrees(1), {"zero": 0}, *run[1:], ranks=1)[0])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_hundred_steps_equal_those_of_one_process(pool, alone, optimizer, layout):
    """The same seed and order of data: every loss of a hundred steps in fp32 to 1e-4, and the loss falls."""
    degrees, choices = LAYOUTS[layout]
    expected = alone(optimizer, STEPS)
    found = pool.run(losses, optimizer, degrees, choices, STEPS, ranks=int(degrees.world))[0]
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < TOLERANCE
    assert sum(expected[-10:]) < sum(expected[:10]) - 10.0


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adafactor", "muon", "adam-bf16"])
@pytest.mark.parametrize("layout", WIDE)
def test_every_cut_of_a_matrix_is_updated_as_the_whole(pool, alone, optimizer, layout):
    """What looks at whole matrices (Muon, Adafactor) does so where two axes cut them, too."""
    degrees, choices = WIDE[layout]
    found = pool.run(losses, optimizer, degrees, choices, 6, ranks=4)[0]
    assert max(abs(a - b) for a, b in zip(found, alone(optimizer, 6), strict=True)) < TOLERANCE


@pytest.mark.parametrize("optimizer", ["adafactor", "muon"])
def test_stacks_of_experts_are_updated_as_the_whole(pool, alone, optimizer):
    """Experts spread over two ranks, and each stack cut again by ZeRO: every matrix is updated whole."""
    found = pool.run(losses, optimizer, Degrees(4, ep=2), {"zero": 3}, 6, UPDATE, 4, ranks=4)[0]
    expected = alone(optimizer, 6, UPDATE, 4)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < TOLERANCE


def test_random_rounding_is_that_of_one_process(pool, alone):
    """Weights of bf16 values: the bits are drawn for whole matrices, so two shards round as one process does."""
    update = replace(UPDATE, master="bf16-stochastic")
    degrees, choices = LAYOUTS["FSDP"]
    found = pool.run(losses, "adamw", degrees, choices, 6, update, ranks=2)[0]
    expected = alone("adamw", 6, update)
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 0.02
    assert expected != alone("adamw", 6)
