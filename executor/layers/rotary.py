"""Rotary position embedding (Su 2021, arXiv:2104.09864): channel i turns with channel i + d/2."""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10_000.0


Angles = tuple[Tensor, Tensor]


def angles(positions: Tensor, width: int, dtype: torch.dtype) -> Angles:
    """cos and sin [seq, 1, width // 2] of position · base^(-2 i / width), computed in fp32; one pair serves a layer."""
    half = width // 2
    rates = BASE ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
    turns = positions.float()[:, None, None] * rates
    return turns.cos().to(dtype), turns.sin().to(dtype)


def rotate(x: Tensor, turn: Angles) -> Tensor:
    """`x` [batch, seq, heads, d] turned by the angles of its tokens; an odd last channel stays as it is."""
    cosine, sine = turn
    half = x.size(-1) // 2
    first, second, rest = x.split((half, half, x.size(-1) - 2 * half), dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine, rest), dim=-1)
