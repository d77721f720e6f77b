"""The axes of a plan applied to one stage, in the one order that composes: tp, ep, cp, statistics, recompute, data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from executor.mesh import Meshes
from executor.model import Decoder
from executor.parallel.context import apply_context
from executor.parallel.data import FsdpSync, NoSync, apply_data
from executor.parallel.dropout import apply_dropout
from executor.parallel.expert import Slots, apply_expert
from executor.parallel.recompute import apply_recompute
from executor.parallel.statistics import apply_statistics
from executor.parallel.tensor import apply_tensor
from planner.strategy import Choices


@dataclass(frozen=True)
class Options:
    """Ways to run a plan that the plan leaves open.

    `context`: ring, all_gather or ulysses (executor.parallel.context). `placement`: slots of the experts by layer
    number; layers without an entry keep their experts where their weights are. `dropout`: share of the activations
    that `executor.parallel.dropout` drops in training.
    """

    context: str = "ring"
    placement: Mapping[int, Slots] = field(default_factory=dict)
    dropout: float = 0.0


@dataclass(frozen=True)
class Applied:
    """A stage that is cut: the `sync` of its data parallelism, and `summed`, names of parameters whose gradients must
    be added over tp at the end of a step (each tp rank saw other tokens, or other heads).
    """

    module: Decoder
    sync: NoSync | FsdpSync
    summed: tuple[str, ...]

    def partial(self) -> list[nn.Parameter]:
        """The parameters of `summed`."""
        known = dict(self.module.named_parameters())
        return [known[name] for name in self.summed]


def apply(
    module: Decoder, meshes: Meshes, choices: Choices, options: Options, seq_len: int, dtype: torch.dtype
) -> Applied:
    """Cut one stage in place for this rank; every rank of the stage must call it."""
    summed = apply_tensor(module, meshes, sequence=choices.sequence_parallel)
    apply_expert(module, meshes, options.placement)
    apply_context(module, meshes, options.context, seq_len)
    apply_statistics(module, meshes)
    apply_dropout(module, options.dropout)
    apply_recompute(module, choices.recompute, random=options.dropout > 0)
    return Applied(module, apply_data(module, meshes, choices.zero, dtype), tuple(summed))
