"""The optimizer of a name over the pieces of one rank: groups by weight decay, and by matrix or not for Muon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from executor.optimizers.adam import LowAdam
from executor.optimizers.factored import Factored
from executor.optimizers.lion import Lion
from executor.optimizers.moments import Bf16, Blocks8
from executor.optimizers.muon import Muon
from executor.optimizers.settings import Update

Piece = tuple[str, Tensor, nn.Parameter]
"""A parameter's canonical name, itself (a DTensor where it is cut), and this rank's piece of it."""
EMBEDDINGS = (".tokens.weight", ".positions.weight", ".types.weight")


def build(name: str, pieces: Sequence[Piece], update: Update) -> torch.optim.Optimizer:
    """The optimizer `name` (of `settings.NAMES`) over those pieces that are trained, fused where torch can."""
    trained = [piece for piece in pieces if piece[2].requires_grad]
    groups = _groups(trained, update, split=name == "muon")
    likes: dict[Tensor, Tensor] = {piece: parameter for _, parameter, piece in trained}
    rate: dict[str, Any] = {"lr": update.learning_rate, "weight_decay": update.weight_decay}
    adam = {**rate, "betas": update.betas_of(name), "eps": update.epsilon}
    momentum: dict[str, Any] = {"momentum": update.momentum_of(name), "nesterov": update.nesterov_of(name)}
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adam": lambda: torch.optim.Adam(groups, **adam, fused=True),
        "adamw": lambda: torch.optim.AdamW(groups, **adam, fused=True),
        "adam-bf16": lambda: LowAdam(groups, Bf16(), **adam),
        "adam-8bit": lambda: LowAdam(groups, Blocks8(), **adam),
        "sgd": lambda: torch.optim.SGD(groups, **rate, **momentum, fused=True),
        "sgd-plain": lambda: torch.optim.SGD(groups, **rate, **momentum, fused=True),
        "adafactor": lambda: Factored(groups, likes, **rate, beta2_decay=update.beta2_decay),
        "muon": lambda: Muon(groups, likes, **adam, **momentum),
        "lion": lambda: Lion(groups, **rate, betas=update.betas_of(name)),
    }
    return makers[name]()


def kind(name: str, parameter: Tensor) -> str:
    """What a parameter is: "biases", "norms" (gains and all other vectors), "embeddings" or "matrices"."""
    if "bias" in name.rsplit(".", 1)[-1]:
        return "biases"
    if parameter.dim() < 2:
        return "norms"
    return "embeddings" if any(part in name for part in EMBEDDINGS) else "matrices"


def _groups(pieces: Sequence[Piece], update: Update, *, split: bool) -> list[dict[str, Any]]:
    """One group for each (decayed or not, matrix or not) that occurs; `split` sorts by the second."""
    found: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter, piece in pieces:
        what = kind(name, parameter)
        inner = split and what == "matrices" and not name.startswith("head.")
        found.setdefault((what not in update.exclude, inner), []).append(piece)
    return [
        {
            "params": members,
            "weight_decay": update.weight_decay if decayed else 0.0,
            **({"matrices": inner} if split else {}),
        }
        for (decayed, inner), members in found.items()
    ]
