"""Memory-bound work as the one kernel that production runs: for its backward pass each keeps its inputs and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

_aten = torch.ops.aten


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """weight · x / sqrt(mean(x²) + epsilon) over the last dim; keeps x and one number a row."""
    if x.is_cuda:
        return functional.rms_norm(x, (x.size(-1),), weight, epsilon)  # one kernel there
    return _RmsNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call, no-any-return]


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = at_least_fp32(x)
        scale = (wide.square().mean(-1, keepdim=True) + epsilon).rsqrt()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype) * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        normed, gradient = at_least_fp32(x) * scale, at_least_fp32(gradient)
        of_weight = (gradient * normed).flatten(0, -2).sum(0).to(weight.dtype)
        gradient = gradient * weight
        along = (gradient * normed).mean(-1, keepdim=True)
        return (scale * (gradient - along * normed)).to(x.dtype), of_weight, None


def activate(up: Tensor, gate: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """silu(gate) · up, or gelu(up) without a gate, each row times its weight [rows] if any; keeps the inputs."""
    return _Activate.apply(up, gate, weights)  # type: ignore[no-untyped-call, no-any-return]


class _Activate(Function):
    @staticmethod
    def forward(ctx: Any, up: Tensor, gate: Tensor | None, weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(up, gate, weights)
        y = functional.gelu(up) if gate is None else functional.silu(gate).mul_(up)
        return y if weights is None else y.mul_(weights.unsqueeze(-1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        up, gate, weights = ctx.saved_tensors
        plain = None if gate is None else functional.silu(gate)
        of_weights = None
        if weights is not None:
            y = functional.gelu(up) if plain is None else plain * up
            of_weights = (at_least_fp32(y) * gradient).sum(-1).to(weights.dtype)
            gradient = gradient * weights.unsqueeze(-1)
        if plain is None:
            return _aten.gelu_backward(gradient, up), None, of_weights
        return gradient * plain, _aten.silu_backward(gradient * up, gate), of_weights


def add_rows(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """[count, width]: the sum of the `rows` [m, width] that go to each place of `index` [m]; keeps the index alone."""
    return _AddRows.apply(rows, index, count)  # type: ignore[no-untyped-call, no-any-return]


class _AddRows(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(index)
        return rows.new_zeros(count, rows.size(1)).index_add_(0, index, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return gradient.index_select(0, index), None, None


def fused(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function(*inputs)` as one kernel that keeps its inputs and computes the rest again for the backward pass."""
    return _Fused.apply(function, *inputs)  # type: ignore[no-untyped-call, no-any-return]


class _Fused(Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            out = ctx.function(*inputs)
        return None, *torch.autograd.grad(out, inputs, gradient)


def at_least_fp32(x: Tensor) -> Tensor:
    """`x` in fp32, or as it is when wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
