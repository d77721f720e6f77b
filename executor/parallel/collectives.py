"""Collectives that autograd can pass: each is one torch functional collective forward and its mirror backward.

Functional ones, so that selective recompute may keep their results. Every call is one span (`executor.spans`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from executor.spans import span

Group = dist.ProcessGroup


def run(function: Any, *arguments: Any) -> Tensor:
    """Apply an autograd function, which torch leaves untyped."""
    result: Tensor = function.apply(*arguments)
    return result


def all_gather(x: Tensor, dim: int, group: Group, phase: str) -> Tensor:
    """`x` of all ranks of the group, one after the other along `dim`; no gradient."""
    with span("all_gather", phase=phase, size=x.nbytes * group.size()):
        parts: Tensor = functional.wait_tensor(functional.all_gather_single(x.contiguous(), 0, group))
    if dim == 0 or group.size() == 1:
        return parts
    return torch.cat(parts.chunk(group.size(), 0), dim)


def reduce_scatter(x: Tensor, dim: int, group: Group, phase: str) -> Tensor:
    """This rank's part along `dim` of the sum of `x` over the group; no gradient."""
    if dim:
        x = torch.cat(x.chunk(group.size(), dim), 0)
    with span("reduce_scatter", phase=phase, size=x.nbytes):
        part: Tensor = functional.wait_tensor(functional.reduce_scatter_single(x.contiguous(), "sum", 0, group))
    return part


def all_reduce(x: Tensor, group: Group, phase: str, op: str = "sum") -> Tensor:
    """The sum (`op`) of `x` over the group; no gradient."""
    with span("all_reduce", phase=phase, size=x.nbytes):
        total: Tensor = functional.wait_tensor(functional.all_reduce(x.contiguous(), op, group))
    return total


def all_to_all(x: Tensor, got: Sequence[int], sent: Sequence[int], group: Group, phase: str) -> Tensor:
    """Rows of `x` exchanged: `sent[i]` rows go to rank i, `got[i]` come from it, in rank order; no gradient."""
    with span("all_to_all", phase=phase, size=x.nbytes):
        call = functional.all_to_all_single(x.contiguous(), list(got), list(sent), group)
        arrived: Tensor = functional.wait_tensor(call)
    return arrived


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group, phase: str) -> Tensor:
        ctx.call = (dim, group, phase)
        return all_gather(x, dim, group, phase)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return reduce_scatter(gradient, *ctx.call), None, None, None


class _Scatter(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group, phase: str) -> Tensor:
        ctx.call = (dim, group, phase)
        return reduce_scatter(x, dim, group, phase)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return all_gather(gradient, *ctx.call), None, None, None


class _Copy(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, phase: str) -> Tensor:
        ctx.call = (group, phase)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return all_reduce(gradient, *ctx.call), None, None


class _Reduce(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, phase: str) -> Tensor:
        return all_reduce(x, group, phase)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


class _Exchange(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, got: Sequence[int], sent: Sequence[int], group: Group, phase: str) -> Tensor:
        ctx.call = (sent, got, group, phase)
        return all_to_all(x, got, sent, group, phase)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return all_to_all(gradient, *ctx.call), None, None, None, None


def gather(x: Tensor, dim: int, group: Group, phase: str) -> Tensor:
    """All-gather along `dim`; the backward pass sums and scatters."""
    return run(_Gather, x, dim, group, phase)


def scatter(x: Tensor, dim: int, group: Group, phase: str) -> Tensor:
    """Sum over the group and keep this rank's part along `dim`; the backward pass gathers."""
    return run(_Scatter, x, dim, group, phase)


def copy(x: Tensor, group: Group, phase: str) -> Tensor:
    """`x` as it is; the backward pass sums over the group."""
    return run(_Copy, x, group, phase)


def reduce(x: Tensor, group: Group, phase: str) -> Tensor:
    """Sum over the group; the backward pass hands the gradient on."""
    return run(_Reduce, x, group, phase)


def exchange(x: Tensor, got: Sequence[int], sent: Sequence[int], group: Group, phase: str) -> Tensor:
    """Rows to and from each rank (`all_to_all`); the backward pass sends them back."""
    return run(_Exchange, x, got, sent, group, phase)
