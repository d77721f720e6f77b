"""Adafactor (Shazeer 2018, arXiv:1804.04235) by torch's own code, on whole tensors where a parameter is cut over ranks.

Its second moment is kept as the means of rows and columns, and its step is relative to the size of the weights, which
no piece knows. Gradients and weights of a cut parameter are gathered for the update, one parameter at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from executor.optimizers.base import Own, State
from executor.optimizers.whole import gathered, replace


class Factored(Own):
    """torch.optim.Adafactor; the states, which are small, are whole on every rank."""

    def __init__(self, groups: Iterable[dict[str, Any]], likes: Mapping[Tensor, Tensor], **defaults: Any) -> None:
        """`likes`: the parameter (a DTensor where it is cut) of each piece.

        `defaults`: lr, weight_decay, beta2_decay.
        """
        super().__init__(groups, defaults)
        self._likes = likes

    def _update(self, piece: Tensor, gradient: Tensor, state: State, group: dict[str, Any]) -> None:
        like = self._likes[piece]
        whole = nn.Parameter(gathered(piece.detach(), like).clone())
        whole.grad = gathered(gradient, like)
        options = {name: group[name] for name in ("lr", "weight_decay", "beta2_decay")}
        inner = torch.optim.Adafactor([whole], **options, foreach=False)
        if state:
            inner.state[whole] = state
        inner.step()
        state.update(inner.state[whole])
        replace(piece, whole.detach(), like)
