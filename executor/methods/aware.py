"""Training for low precision: weights rounded for each pass, inputs and gradients rounded on the way.

Before a step every weight is replaced by what its codes stand for; before the optimizer moves it, it gets its own
value back. The gradient so belongs to the rounded weight and moves the exact one: the straight-through estimator
(Bengio 2013, arXiv:1308.3432; Jacob 2018, arXiv:1712.05877), on any layout, since only this rank's pieces are touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function

from executor.layers.moe import Experts
from executor.methods import quantize
from executor.methods.settings import Quantize
from executor.methods.targets import INPUTS, SPARED, Holds, compressible, cuts, rows
from planner.errors import Fault, InputError

BITS = {"int8": 8, "int4": 4}
INPUT_BITS = 8  # of inputs, whatever the weights have


class Rounded:
    """The weights of `targets` for one pass: `lay_on` rounds them in place, `give_back` restores them."""

    def __init__(self, targets: Sequence[Holds], how: Quantize) -> None:
        """InputError when an axis cuts the inputs inside a group."""
        self.targets, self.how = list(targets), how
        self.group = how.group if how.form == "int4" else 0
        self._own: list[Tensor] = []
        torn = [fault for each in targets for fault in self._torn(each)]
        if torn:
            raise InputError(*torn)

    @torch.no_grad()
    def lay_on(self) -> None:
        """Every rank calls it: the scale of a row is the same on all ranks that hold parts of it."""
        self.give_back()
        for each in self.targets:
            self._own.append(each.piece.detach().clone())
            each.piece.copy_(self._rounded(each))

    @torch.no_grad()
    def give_back(self) -> None:
        """The weights as they were; nothing when they are."""
        for each, own in zip(self.targets, self._own, strict=bool(self._own)):
            each.piece.copy_(own)
        self._own.clear()

    def _rounded(self, target: Holds) -> Tensor:
        piece = target.piece.detach()
        if self.how.form == "fp8":
            return quantize.cast_fp8(piece, "e4m3", _together(_most(piece), list(cuts(target.parameter))))
        bits = BITS[self.how.form]
        most = quantize.largest(rows(piece).float(), self.group)
        if not self.group:
            most = _together(most, list(cuts(target.parameter, INPUTS)))
        return quantize.fake(piece, bits, most / quantize.MOST[bits], self.group)

    def _torn(self, target: Holds) -> list[Fault]:
        ways = 1
        for cut in cuts(target.parameter, INPUTS):
            ways *= cut.size()
        inputs = target.parameter.shape[INPUTS]
        if not self.group or ways == 1 or inputs % (ways * self.group) == 0:
            return []
        expected = f"groups of {self.group} inputs don't fit {inputs} inputs that are cut into {ways} parts"
        return [Fault(target.name, expected)]


class Inputs:
    """Hooks on the products of a module: inputs rounded forward and, for fp8, gradients backward."""

    def __init__(self, how: Quantize) -> None:
        """Nothing is rounded until `active`."""
        self.how, self.active = how, False

    def install(self, module: nn.Module, spared: frozenset[str] = SPARED) -> int:
        """Put the hooks on the compressible products inside `module`; how many."""
        if self.how.form != "fp8" and not self.how.activations:
            return 0
        found = 0
        for name, part in module.named_modules():
            if not isinstance(part, nn.Linear | nn.Conv2d | Experts):
                continue
            weight = part.up if isinstance(part, Experts) else part.weight
            if compressible(name, weight.shape, spared):
                part.register_forward_pre_hook(self._before)
                if self.how.form == "fp8":
                    part.register_forward_hook(self._behind)
                found += 1
        return found

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self.active:
            return None
        if self.how.form == "fp8":
            return (_Forward.apply(inputs[0], "e4m3", None), *inputs[1:])  # type: ignore[no-untyped-call]
        kernel = isinstance(module, nn.Conv2d)
        weight = None if isinstance(module, Experts) else module.weight
        groups = [] if weight is None else list(cuts(weight, INPUTS))  # type: ignore[arg-type]
        most = _together(_of_tokens(inputs[0].detach(), kernel=kernel), groups)
        return (_Forward.apply(inputs[0], "int8", most), *inputs[1:])  # type: ignore[no-untyped-call]

    def _behind(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        return _Backward.apply(output) if self.active else None  # type: ignore[no-untyped-call]


class _Forward(Function):
    """Rounded forward, straight through backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, form: str, most: Tensor | None) -> Tensor:
        if most is None:
            return quantize.cast_fp8(x, form)
        scale = most / quantize.MOST[INPUT_BITS]
        return ((x / scale).round().clamp(-quantize.MOST[INPUT_BITS], quantize.MOST[INPUT_BITS]) * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


class _Backward(Function):
    """As it is forward; its gradient in e5m2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return quantize.cast_fp8(gradient, "e5m2")


def _of_tokens(x: Tensor, *, kernel: bool) -> Tensor:
    """The largest magnitude of each token [..., 1], or of each image [n, 1, 1, 1]."""
    dims = (1, 2, 3) if kernel else (-1,)
    return x.abs().amax(dims, keepdim=True).clamp(min=quantize.TINY)


def _most(piece: Tensor) -> Tensor:
    return piece.abs().amax() if piece.numel() else piece.new_zeros(())


def _together(most: Tensor, groups: Sequence[dist.ProcessGroup]) -> Tensor:
    """The largest over the ranks of the groups."""
    for group in groups:
        dist.all_reduce(most, dist.ReduceOp.MAX, group=group)
    return most
