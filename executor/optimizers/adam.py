"""AdamW (Loshchilov 2019, arXiv:1711.05101) whose moments are kept in fewer bits than it computes with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from executor.optimizers.base import Own, State
from executor.optimizers.moments import Store

FIRST, SECOND = "exp_avg", "exp_avg_sq"  # torch's names


class LowAdam(Own):
    """AdamW in fp32 between a read and a write of its moments in the form of `store`."""

    def __init__(self, groups: Iterable[dict[str, Any]], store: Store, **defaults: Any) -> None:
        """`defaults`: lr, betas, eps, weight_decay."""
        super().__init__(groups, defaults)
        self.store = store

    def portable(self, piece: Tensor) -> State:
        """Moments in fp32, which another cut of the parameter can quantize anew; the same cut gets the same bits."""
        state = self.state[piece]
        return {"step": state["step"], **{name: self._read(state, name, piece) for name in (FIRST, SECOND)}}

    def adopt(self, piece: Tensor, state: State) -> None:
        """Keep the moments of a checkpoint in our form."""
        self.state[piece]["step"] = state["step"]
        for name in (FIRST, SECOND):
            self._write(self.state[piece], name, state[name])

    def _update(self, piece: Tensor, gradient: Tensor, state: State, group: dict[str, Any]) -> None:
        if not state:
            state["step"] = torch.zeros(())
            for name in (FIRST, SECOND):
                self._write(state, name, torch.zeros_like(piece))
        first, second = (self._read(state, name, piece) for name in (FIRST, SECOND))
        state["step"] += 1
        adamw(piece, gradient, first, second, float(state["step"]), group)
        self._write(state, FIRST, first)
        self._write(state, SECOND, second)

    def _read(self, state: State, name: str, piece: Tensor) -> Tensor:
        kept = {key.removeprefix(name): value for key, value in state.items() if key in (name, *_parts(name))}
        return self.store.unpack(kept, piece)

    def _write(self, state: State, name: str, value: Tensor) -> None:
        kept = self.store.pack(value, signed=name == FIRST)
        state.update({f"{name}{key}": tensor for key, tensor in kept.items()})


def _parts(name: str) -> tuple[str, ...]:
    return tuple(f"{name}{key}" for key in (".codes", ".scales", ".signed"))


def adamw(piece: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: float, group: dict[str, Any]) -> None:
    """One step (from 1) in place on `piece` and its moments; `group` has lr, betas, eps, weight_decay."""
    beta1, beta2 = group["betas"]
    piece.mul_(1.0 - group["lr"] * group["weight_decay"])
    first.lerp_(gradient, 1.0 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
    size = second.sqrt().div_((1.0 - beta2**step) ** 0.5).add_(group["eps"])
    piece.addcdiv_(first, size, value=-group["lr"] / (1.0 - beta1**step))
