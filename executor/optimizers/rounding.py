"""Master weights with the 8 significant bits of bf16: after each step they are rounded, to the nearest or at random.

Rounding at random keeps small steps alive on average (Gupta 2015, arXiv:1502.02551). The weights stay in fp32 tensors,
which hold bf16 values exactly: the numerics are those of bf16 weights, the memory is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from executor.optimizers.settings import Update
from executor.optimizers.whole import own

LOW = 16  # bits of fp32 that bf16 has not


class Rounding:
    """Rounds weights in place; `step` counts the calls and belongs into a checkpoint."""

    def __init__(self, seed: int, *, stochastic: bool) -> None:
        """`seed` of the random bits, which depend on it, the step and the parameter's name alone."""
        self.seed, self.stochastic = seed, stochastic
        self.step = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def __call__(self, weights: Iterable[tuple[str, Tensor, Tensor]]) -> None:
        """Round each (name, local piece, parameter): the bits are drawn for the whole, so any cut gets the same."""
        self.step += 1
        for name, piece, like in weights:
            if self.stochastic:
                piece.copy_(lowered(piece, own(self._bits(name, like), like)))
            else:
                piece.copy_(piece.bfloat16())

    def _bits(self, name: str, like: Tensor) -> Tensor:
        digest = hashlib.blake2b(f"{self.seed}/{int(self.step)}/{name}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        return torch.randint(1 << LOW, like.shape, generator=generator, dtype=torch.int32).to(like.device)


def rounding(update: Update) -> Rounding | None:
    """What `update` does to the weights after a step; None for fp32."""
    return None if update.master == "fp32" else Rounding(update.seed, stochastic=update.master == "bf16-stochastic")


def lowered(value: Tensor, bits: Tensor) -> Tensor:
    """fp32 `value` rounded to a bf16 neighbour: up when its lower 16 bits plus the random `bits` [int32] carry."""
    raised = value.contiguous().view(torch.int32) + bits
    return (raised >> LOW << LOW).view(torch.float32)
