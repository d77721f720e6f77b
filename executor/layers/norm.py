"""Twins of the norms: RMS and layer norm, and one over a width that tensor parallelism cuts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.layers.base import Spec, local
from executor.layers.fused import at_least_fp32, rms_norm

EPSILON = 1e-5


def norm(spec: Spec, name: str) -> nn.Module:
    """The norm called `name`: RMS with one learned vector, layer norm with two or none."""
    width = spec.pointwise(name).width
    return plain(width, spec.vectors(f"{name}_gain", width))


def plain(width: int, vectors: int) -> nn.Module:
    """A norm over `width` channels with `vectors` learned vectors.

    A layer norm with a gain alone counts one vector like an RMS norm and is built as one.
    """
    if vectors == 1:
        return RmsNorm(width)
    return nn.LayerNorm(width, eps=EPSILON, elementwise_affine=vectors > 0)


class RmsNorm(nn.Module):
    """weight · x / sqrt(mean(x²) + ε); as one kernel, which torch's own is not on a CPU."""

    def __init__(self, width: int) -> None:
        """One gain a channel."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """`x` [..., width], normed."""
        return rms_norm(x, local(self.weight), EPSILON)


class WideNorm(nn.Module):
    """A norm over all heads together, of which this rank may hold some: RMS, or layer norm with two vectors.

    `reduce` adds a tensor over the ranks that share the width (differentiable), `ways` is their number.
    """

    def __init__(self, width: int, vectors: int = 1) -> None:
        """One or two learned values a channel."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width)) if vectors > 1 else None
        self.reduce: Callable[[Tensor], Tensor] | None = None
        self.ways = 1

    def forward(self, x: Tensor) -> Tensor:
        """`x` [..., width on this rank], normed over the whole width."""
        if self.reduce is None:
            if self.bias is None:
                return rms_norm(x, local(self.weight), EPSILON)
            return functional.layer_norm(x, (x.size(-1),), local(self.weight), local(self.bias), EPSILON)
        wide = at_least_fp32(x)
        wide = wide if self.bias is None else wide - self._mean(wide)
        scale = (self._mean(wide.square()) + EPSILON).rsqrt()
        y = (wide * scale).type_as(x) * local(self.weight)
        return y if self.bias is None else y + local(self.bias)

    def _mean(self, x: Tensor) -> Tensor:
        """Mean over the whole width, [..., 1]."""
        if self.reduce is None:
            raise ValueError("a norm of a slice needs the sum over the ranks that share the width")
        return self.reduce(x.sum(-1, keepdim=True)) / (self.ways * x.size(-1))
