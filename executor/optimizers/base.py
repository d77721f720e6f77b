"""The loop that our own optimizers share, and what every optimizer needs to go into a checkpoint of any layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]


class Own(torch.optim.Optimizer, ABC):
    """An optimizer that changes one local piece after another by `_update`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every piece that has a gradient; a closure is not called."""
        for group in self.param_groups:
            for piece in group["params"]:
                if piece.grad is not None:
                    self._update(piece, piece.grad, self.state[piece], group)

    @abstractmethod
    def _update(self, piece: Tensor, gradient: Tensor, state: State, group: dict[str, Any]) -> None:
        """Change `piece` [as stored here] by its `gradient`; `state` and `group` are torch's."""

    def portable(self, piece: Tensor) -> State:
        """The state of a piece in a form that any cut of the parameter can take up; shares memory where it can."""
        found: State = self.state[piece]
        return found

    def adopt(self, piece: Tensor, state: State) -> None:
        """Take up what `portable` gave and a checkpoint has filled."""


def portable(optimizer: torch.optim.Optimizer, piece: Tensor) -> State:
    """`Own.portable`, or the state itself of one of torch's optimizers."""
    found: State = optimizer.portable(piece) if isinstance(optimizer, Own) else optimizer.state[piece]
    return found


def adopt(optimizer: torch.optim.Optimizer, piece: Tensor, state: State) -> None:
    """`Own.adopt`; the states of torch's optimizers were read in place."""
    if isinstance(optimizer, Own):
        optimizer.adopt(piece, state)
