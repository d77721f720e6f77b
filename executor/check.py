"""A plan beside one process that trains the same: the loss and every gradient."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from executor.objective import IGNORED, Classification, objective_of
from executor.parallel import Options
from executor.ranks import Ranks
from executor.trainer import Trainer
from planner.model import Model
from planner.record import Check
from planner.strategy import ORDERS, Choices, Degrees, Workload

ROUNDING = 1e-6  # of the largest gradient: a sum of fp32 products that cancel
HIDDEN = 0.15  # of the tokens of a random batch (BERT, arXiv:1810.04805)


def check(
    pool: Ranks,
    model: Model,
    degrees: Degrees,
    choices: Choices,
    workload: Workload,
    seed: int = 0,
    options: Options = Options(),  # noqa: B008 (frozen)
) -> Check:
    """Train one step on random tokens by the plan and on one rank, with the same micro-batches, and compare.

    `gradient_error` is the largest, over the parameters, of max |difference| over max |gradient| of the one process.
    RankFailed when a rank failed. The pool needs `degrees.world` ranks.
    """
    alone = Degrees(1, micro_batch=degrees.micro_batch)
    plain = replace(choices, schedule="1f1b", zero=0, recompute="none", order=ORDERS[0])
    expected = pool.run(measure, model, alone, plain, workload, seed, Options(), ranks=1)[0]
    found = pool.run(measure, model, degrees, choices, workload, seed, options, ranks=int(degrees.world))[0]
    return compare(expected, found)


Measured = tuple[float, dict[str, Tensor]]


def measure(
    model: Model, degrees: Degrees, choices: Choices, workload: Workload, seed: int, options: Options
) -> Measured | None:
    """Loss and whole gradients of one step, on rank 0."""
    logging.getLogger("torch.distributed.tensor").setLevel(logging.ERROR)  # gathering strided shards takes two steps
    trainer = Trainer(model, degrees, choices, workload, seed=seed, options=options)
    batch = random_batch(model, workload, seed)
    loss = trainer.forward_backward([each[list(trainer.rows)] for each in batch])
    gradients = trainer.gradients()
    return (loss, gradients) if dist.get_rank() == 0 else None


def random_tokens(model: Model, workload: Workload, seed: int) -> Tensor:
    """A global batch of token ids [global_batch, seq_len + 1], the same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.vocab, (workload.global_batch, workload.seq_len + 1), generator=generator)


def random_batch(model: Model, workload: Workload, seed: int) -> tuple[Tensor, ...]:
    """A global batch of what the model takes and predicts, the same on every rank."""
    if model.predicts == "tokens":
        return (random_tokens(model, workload, seed),)
    generator = torch.Generator().manual_seed(seed)
    rows, objective = workload.global_batch, objective_of(model)
    if model.embedding.takes:
        inputs = torch.randn(rows, *model.embedding.takes, generator=generator)
    else:
        inputs = random_tokens(model, workload, seed)[:, 1:]
    if isinstance(objective, Classification):
        return inputs, torch.randint(objective.classes, (rows,), generator=generator)
    hidden = torch.rand(inputs.shape, generator=generator) < HIDDEN
    return inputs.masked_fill(hidden, 0), inputs.masked_fill(~hidden, IGNORED)


def compare(expected: Measured, found: Measured) -> Check:
    """The errors of (loss, gradients) against those expected; a gradient that only one of them has is off by inf.

    A gradient that is nothing but rounding (that of the keys' bias, which moves all scores of a query alike) is
    compared with the largest of all.
    """
    loss = abs(found[0] - expected[0]) / abs(expected[0])
    errors = [float("inf")] if expected[1].keys() != found[1].keys() else []
    largest = max((each.abs().max().item() for each in expected[1].values()), default=0.0)
    for name in expected[1].keys() & found[1].keys():
        off = (found[1][name] - expected[1][name]).abs().max().item()
        size = expected[1][name].abs().max().item()
        if max(size, off) <= ROUNDING * largest:
            size = largest
        errors.append(off / size if size else (float("inf") if off else 0.0))
    return Check(loss_error=loss, gradient_error=max(errors, default=0.0))
