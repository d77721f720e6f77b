"""Batch norm (Ioffe 2015, arXiv:1502.03167) whose statistics are those of all samples that the ranks work on at once.

Data-parallel ranks join their micro-batches: the result is that of one process whose micro-batch is all of theirs.
torch's SyncBatchNorm does the same on GPUs alone. Running statistics are buffers, the same on all ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from executor.layers.base import local
from executor.layers.fused import at_least_fp32

EPSILON = 1e-5
MOMENTUM = 0.1  # of the running statistics, as in torch


@dataclass(frozen=True)
class Joined:
    """The `ways` ranks whose samples count together: `gather` [ways, …] of all of them, `total` their sum."""

    ways: int
    gather: Callable[[Tensor], Tensor]
    total: Callable[[Tensor], Tensor]


class BatchNorm(nn.Module):
    """weight · (x - mean) / sqrt(var + ε) + bias by channel; in evaluation mode with the running statistics.

    `joined`: the ranks whose samples count together, None for this one alone. `counting` says whether a forward pass
    moves the running statistics: not when activation recompute repeats it.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        """One gain and one bias a channel."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.register_buffer("running_mean", torch.empty(width))
        self.register_buffer("running_var", torch.empty(width))
        self.joined: Joined | None = None
        self.counting: Callable[[], bool] = lambda: True

    def forward(self, x: Tensor) -> Tensor:
        """`x` [b, width, height, width of the image], normed over all but the channels."""
        weight, bias = at_least_fp32(local(self.weight)), at_least_fp32(local(self.bias))  # as the statistics are
        if not self.training:
            return functional.batch_norm(x, self.running_mean, self.running_var, weight, bias, eps=EPSILON)
        counted, joined = self.counting(), self.joined
        if joined is None:
            mean, variance = (self.running_mean, self.running_var) if counted else (None, None)
            return functional.batch_norm(x, mean, variance, weight, bias, True, MOMENTUM, EPSILON)  # noqa: FBT003
        own, spread = _statistics(x.detach(), joined)
        if counted:
            samples = x.numel() // x.size(1) * joined.ways
            with torch.no_grad():
                self.running_mean.lerp_(own, MOMENTUM)
                self.running_var.lerp_(spread * (samples / (samples - 1)), MOMENTUM)
        return _Normed.apply(x, weight, bias, own, (spread + EPSILON).rsqrt(), joined)  # type: ignore[no-untyped-call, no-any-return]


def _statistics(x: Tensor, joined: Joined) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over the samples of all ranks, which have equally many."""
    variance, mean = torch.var_mean(at_least_fp32(x), (0, 2, 3), correction=0)
    means, variances = joined.gather(torch.stack((mean, variance)).unsqueeze(0)).unbind(1)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


class _Normed(Function):
    """The norm by given statistics, which depend on the input of every rank; keeps its input."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, joined: Joined
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.joined = joined
        normed = (at_least_fp32(x) - _wide(mean)) * _wide(scale)
        return (normed * _wide(weight) + _wide(bias)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        gradient = at_least_fp32(gradient)
        normed = (at_least_fp32(x) - _wide(mean)) * _wide(scale)
        own = torch.stack((gradient.sum((0, 2, 3)), (gradient * normed).sum((0, 2, 3))))
        samples = x.numel() // x.size(1) * ctx.joined.ways
        total, along = (ctx.joined.total(own) / samples).unbind(0)
        back = (gradient - _wide(total) - normed * _wide(along)) * _wide(scale * weight)
        return back.to(x.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None, None, None


def _wide(x: Tensor) -> Tensor:
    """[width] against [b, width, …, …]."""
    return x[:, None, None]
