"""Muon: momentum whose matrices are made orthogonal (Jordan 2024, kellerjordan.github.io/posts/muon), AdamW elsewhere.

A matrix that is cut over ranks is gathered before and cut again after Newton-Schulz, so the update is that of one
process; every rank of its group does the same multiplies. Momentum stays cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from executor.optimizers.adam import FIRST, SECOND, adamw
from executor.optimizers.base import Own, State
from executor.optimizers.whole import gathered, own

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd quintic of the post above; torch.optim.Muon's defaults too
STEPS = 5
SAME_RMS = 0.2  # of an update as large as AdamW's, for which one learning rate serves both (arXiv:2502.16982, 2.2)


class Muon(Own):
    """Groups with `matrices` set are orthogonalised, the others take AdamW.

    torch.optim.Muon takes whole matrices in bf16 only; this one takes pieces, stacks of experts and convolutions, and
    stays in the dtype of the weights.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], likes: Mapping[Tensor, Tensor], **defaults: Any) -> None:
        """`likes`: the parameter (a DTensor where it is cut) of each piece.

        `defaults`: lr, betas, eps, weight_decay, momentum, nesterov.
        """
        super().__init__(groups, defaults)
        self._likes = likes

    def _update(self, piece: Tensor, gradient: Tensor, state: State, group: dict[str, Any]) -> None:
        if not group["matrices"]:
            if not state:
                state.update({"step": torch.zeros(()), FIRST: torch.zeros_like(piece), SECOND: torch.zeros_like(piece)})
            state["step"] += 1
            adamw(piece, gradient, state[FIRST], state[SECOND], float(state["step"]), group)
            return
        if not state:
            state["momentum_buffer"] = torch.zeros_like(piece)
        momentum, keep = state["momentum_buffer"], group["momentum"]
        momentum.lerp_(gradient, 1.0 - keep)
        update = gradient.lerp(momentum, keep) if group["nesterov"] else momentum
        like = self._likes[piece]
        turned = own(orthogonal(gathered(update, like)), like)
        piece.mul_(1.0 - group["lr"] * group["weight_decay"])
        piece.add_(turned, alpha=-group["lr"])


def orthogonal(update: Tensor) -> Tensor:
    """`update` [a, b], stacks of them or a convolution [a, b, height, width], with singular values near 1.

    Newton-Schulz iterations; scaled by SAME_RMS · sqrt(max(a, b)) to the size of AdamW's updates.
    """
    x = update.flatten(1) if update.dim() == 4 else update
    turned = x.size(-2) > x.size(-1)
    x = x.mT if turned else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(STEPS):
        square = x @ x.mT
        x = first * x + (third * square + fifth * square @ square) @ x
    x = x.mT if turned else x
    scaled: Tensor = x * (SAME_RMS * max(x.shape[-2:]) ** 0.5)
    return scaled.reshape(update.shape)
