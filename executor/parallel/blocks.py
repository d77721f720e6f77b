"""The layers of a stage, those inside prediction modules too."""

from __future__ import annotations

from collections.abc import Iterator

from executor.layers.block import Block
from executor.layers.convolution import ResidualBlock
from executor.model import Decoder


def blocks(model: Decoder) -> Iterator[Block | ResidualBlock]:
    """Each layer in order of depth."""
    yield from (module for module in model.modules() if isinstance(module, Block | ResidualBlock))
