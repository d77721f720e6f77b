"""Twins of planner.layers.convolution: stem, residual blocks and classifier of a residual network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from executor.layers.base import Spec, matrix
from executor.layers.batch_norm import BatchNorm
from planner.layers.base import Convolution


class Convolutions(nn.Module):
    """The convolutions of some parts by name, each with its batch norm."""

    def __init__(self, spec: Spec) -> None:
        """As the parts name them."""
        super().__init__()
        parts = [part for part in spec.parts if isinstance(part, Convolution)]
        self.convolutions = nn.ModuleDict({part.name: _convolution(part) for part in parts})
        self.norms = nn.ModuleDict({part.name: BatchNorm(part.outputs) for part in parts})

    def apply_to(self, name: str, x: Tensor) -> Tensor:
        """`x` [b, channels, height, width] through one convolution and its norm."""
        return self.norms[name](self.convolutions[name](x))  # type: ignore[no-any-return]


class Stem(Convolutions):
    """The first convolution, and the maximum over its neighbours where the network has it."""

    def __init__(self, spec: Spec) -> None:
        """The stem of a network's parts."""
        super().__init__(spec)
        self.pool = "pool" in spec.work

    def forward(self, images: Tensor, positions: Tensor | None = None, types: Tensor | None = None) -> Tensor:
        """Images [b, channels, side, side] -> [b, width, …]."""
        x = functional.relu(self.apply_to("stem", images))
        return functional.max_pool2d(x, 3, 2, 1) if self.pool else x


class ResidualBlock(Convolutions):
    """relu(f(x) + x), f two or three convolutions; x passes one where the shape changes."""

    def forward(self, x: Tensor, positions: Tensor | None = None, *_: Any) -> Tensor:
        """`x` [b, channels, height, width] -> the shape of the next block's input."""
        branch, *rest = (name for name in self.convolutions if name != "shortcut")
        y = self.apply_to(branch, x)
        for name in rest:
            y = self.apply_to(name, functional.relu(y))
        return functional.relu(y + (self.apply_to("shortcut", x) if "shortcut" in self.convolutions else x))


class ImageHead(nn.Module):
    """The mean over all positions and a classifier."""

    def __init__(self, spec: Spec) -> None:
        """The head of a network's parts."""
        super().__init__()
        self.output = matrix(spec.linear("output"))

    def forward(self, x: Tensor, predictions: int = 0) -> Tensor:
        """`x` [b, channels, height, width] -> logits [b, classes]."""
        return self.output(x.mean((2, 3)))  # type: ignore[no-any-return]


def _convolution(part: Convolution) -> nn.Conv2d:
    return nn.Conv2d(part.channels, part.outputs, part.kernel, part.stride, part.kernel // 2, bias=part.bias)
