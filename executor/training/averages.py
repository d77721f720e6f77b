"""An exponential moving average of the weights, which evaluations and the saved model use (Polyak 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from executor.optimizers.whole import placed
from executor.trainer import Held


class Averages:
    """average = decay · average + (1 - decay) · weights after every step, piece by piece; starts at the weights."""

    def __init__(self, held: Sequence[Held], decay: float) -> None:
        """`held` of a trainer."""
        self.decay, self._held = decay, held
        self._averages = [each.piece.detach().clone() for each in held]

    @torch.no_grad()
    def update(self) -> None:
        """After an optimizer step."""
        for average, each in zip(self._averages, self._held, strict=True):
            average.lerp_(each.piece, 1.0 - self.decay)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin at the weights as they are."""
        for average, each in zip(self._averages, self._held, strict=True):
            average.copy_(each.piece)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The averages stand in the model's place within the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, each in zip(self._averages, self._held, strict=True):
            kept = each.piece.detach().clone()
            each.piece.copy_(average)
            average.copy_(kept)

    def state(self) -> dict[str, Any]:
        """`average.NAME` for a checkpoint, cut as the parameters are; shares memory."""
        pairs = zip(self._averages, self._held, strict=True)
        return {f"average.{each.name}": placed(average, each.parameter.data) for average, each in pairs}
