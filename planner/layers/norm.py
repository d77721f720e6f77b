"""Norms and residual additions: the memory-bound work on the residual stream.

RMS norm: y = g · x / sqrt(mean(x²) + ε), one gain a channel (Zhang and Sennrich 2019, arXiv:1910.07467).
Layer norm: y = g · (x - mean) / sqrt(var + ε) + b, gain and bias (Ba 2016, arXiv:1607.06450).
"""

from __future__ import annotations

from planner.layers.base import Cut, Parts, Pointwise, Vector

VECTORS = {"rms": 1, "layer": 2, "layer_unbiased": 1, "bare": 0}
"""Learned vectors by kind of norm: gain, gain and bias, gain, none."""

NORM_FORWARD = 2  # reads x, writes y
NORM_BACKWARD = 5  # reads x and dy for dx, writes dx, reads both again for the gradient of the gain
RESIDUAL = 3  # reads both terms, writes the sum; the backward pass adds the two gradients likewise


def norm(
    name: str, width: int, kind: str, label: str = "norms", cut: Cut = Cut.NONE, *, saves_input: bool = True
) -> Parts:
    """A norm over `width` channels; keeps its input (unless another norm of it does), the consumer keeps the output.

    Parameters: VECTORS[kind] · width. Traffic per token: 2 · width tensors forward, 5 · width backward.
    """
    work = Pointwise(name, width, NORM_FORWARD, NORM_BACKWARD, saved=int(saves_input), cut=cut)
    return (*gains(name, width, kind, label, cut), work)


def norms(names: tuple[str, ...], width: int, kind: str) -> Parts:
    """Norms of one and the same tensor, which is kept once."""
    each = (norm(name, width, kind, saves_input=name == names[0]) for name in names)
    return tuple(part for parts in each for part in parts)


def gains(name: str, width: int, kind: str, label: str = "norms", cut: Cut = Cut.NONE) -> Parts:
    """The learned vectors of a norm alone, where its work is stated elsewhere."""
    size = VECTORS[kind] * width
    return (Vector(f"{name}_gain", label, size, cut),) if size else ()


def residual(name: str, hidden: int) -> Parts:
    """x + branch(x): 3 tensors of `hidden` each way, nothing kept."""
    return (Pointwise(name, hidden, RESIDUAL, RESIDUAL),)
