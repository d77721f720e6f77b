"""Magnitude pruning: which weights go, and masks that keep them gone while the rest is fine-tuned.

Unstructured: the smallest of all weights, or of each matrix (Han 2015, arXiv:1506.02626), along the cubic schedule of
Zhu & Gupta (2017, arXiv:1710.01878). Structured: the two largest of every four along the inputs stay (Mishra 2021,
arXiv:2104.08378), which sparse tensor cores multiply at twice the rate. Everything works on this rank's pieces: axes
that cut the outputs change nothing, those that cut the inputs must keep every four together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from executor.methods.select import smallest
from executor.methods.settings import Prune
from executor.methods.targets import INPUTS, Holds, cuts, total
from planner.compression.prune import GROUP
from planner.errors import Fault, InputError

KEPT = 2  # of every GROUP weights along the inputs


@dataclass(frozen=True)
class Sparsity:
    """`zeros` of `weights` on all ranks, counted, not assumed."""

    zeros: int
    weights: int

    @property
    def share(self) -> float:
        """Zeros over weights."""
        return self.zeros / max(self.weights, 1)


def groups_fit(shape: torch.Size | Sequence[int]) -> bool:
    """Whether the inputs of a whole weight are a multiple of four; others stay dense, as in NVIDIA's own tool."""
    return shape[INPUTS] % GROUP == 0


def two_of_four(weight: Tensor) -> Tensor:
    """The mask (true: stays) of the two largest magnitudes of every four along the inputs; of equals the first stay.

    `weight` [out, in], [out, in, height, width] or [experts, in, out], the inputs a multiple of four.
    """
    four = weight.detach().abs().movedim(INPUTS, -1).unflatten(-1, (-1, GROUP))
    order = four.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(four, dtype=torch.bool).scatter(-1, order[..., :KEPT], value=True)
    return mask.flatten(-2).movedim(-1, INPUTS)


def magnitude(
    targets: Sequence[Holds], sparsity: float, scope: str = "global", pipeline: dist.ProcessGroup | None = None
) -> dict[str, Tensor]:
    """Masks by name that take the share `sparsity` of the weights, the smallest; collective.

    Equal magnitudes at the threshold go together, so on every layout the same weights go. With `scope` "matrix" each
    matrix has its own threshold.
    """
    if scope == "matrix":
        found = {}
        for each in targets:  # a matrix stands on one stage of the pipeline
            number = int(total([each], _size))
            found[each.name] = each.piece.detach().abs() > smallest([each], round(sparsity * number))
        return found
    number = int(total(targets, _size, pipeline))
    threshold = smallest(targets, round(sparsity * number), pipeline)
    return {each.name: each.piece.detach().abs() > threshold for each in targets}


def structured(targets: Sequence[Holds]) -> dict[str, Tensor]:
    """Masks by name for the weights whose inputs come in fours; InputError when a cut of the inputs tears a four."""
    fit = [each for each in targets if groups_fit(each.parameter.shape)]
    torn = [fault for each in fit for fault in _torn(each)]
    if torn:
        raise InputError(*torn)
    return {each.name: two_of_four(each.piece) for each in fit}


class Pruner:
    """Masks of one training on this rank: made by the schedule, laid on after every step."""

    def __init__(self, targets: Sequence[Holds], how: Prune, pipeline: dist.ProcessGroup | None = None) -> None:
        """`targets` are what is pruned (`targets.chosen`); `pipeline` the group of stages, None without one."""
        self.targets, self.how, self._pipeline = list(targets), how, pipeline
        self.masks: dict[str, Tensor] = {}
        if how.pattern == "2:4":
            structured(self.targets)  # refused before training, not in the middle
            self.targets = [each for each in self.targets if groups_fit(each.parameter.shape)]

    def after_step(self, step: int) -> None:
        """Make the masks that are due after optimizer step `step` (0: before the first), and lay them on."""
        if self.how.due(step):
            self.cut(self.how.at(step))
        self.apply()

    def cut(self, sparsity: float) -> None:
        """Choose anew which weights go; collective."""
        if self.how.pattern == "2:4":
            self.masks = structured(self.targets)
        else:
            self.masks = magnitude(self.targets, sparsity, self.how.scope, self._pipeline)

    @torch.no_grad()
    def apply(self) -> None:
        """Set the weights that are gone to zero, in place."""
        for each in self.targets:
            if each.name in self.masks:
                each.piece.mul_(self.masks[each.name])

    def resume(self, *, cut: bool) -> None:
        """After a checkpoint was read, of a training that had been `cut`: its zeros are the masks."""
        self.masks = {each.name: each.piece.detach() != 0 for each in self.targets} if cut else {}

    def sparsity(self) -> Sparsity:
        """Zeros among all pruned matrices of all ranks; collective."""
        return counted(self.targets, self._pipeline)

    def facts(self) -> Mapping[str, Any]:
        """What is told of it in training.json."""
        found = self.sparsity()
        return {
            "pattern": self.how.pattern,
            "zeros": found.zeros,
            "weights": found.weights,
            "sparsity": found.share,
        }


def counted(targets: Sequence[Holds], pipeline: dist.ProcessGroup | None = None) -> Sparsity:
    """The zeros of `targets` on all ranks; collective."""
    zeros = total(targets, lambda piece: (piece == 0).sum(), pipeline)
    return Sparsity(int(zeros), int(total(targets, _size, pipeline)))


def _size(piece: Tensor) -> Tensor:
    return torch.tensor(piece.numel())


def _torn(target: Holds) -> list[Fault]:
    ways = 1
    for group in cuts(target.parameter, INPUTS):
        ways *= group.size()
    inputs = target.parameter.shape[INPUTS]
    if inputs % (GROUP * ways) == 0:
        return []
    expected = f"2:4 needs every four inputs on one rank, but {inputs} inputs are cut into {ways} parts"
    return [Fault(target.name, expected)]
