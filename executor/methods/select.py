"""The k-th smallest magnitude of weights that many ranks hold: three histograms are added up, no weight moves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from executor.methods.targets import Holds, total

DIGITS = ((20, 11), (10, 10), (0, 10))  # shift and width of each digit of a magnitude's 31 bits, highest first


def smallest(targets: Sequence[Holds], k: int, pipeline: dist.ProcessGroup | None = None) -> float:
    """The `k`-th smallest magnitude (from 1) of all weights of `targets` on all ranks; below 0 for k = 0.

    Magnitudes in fp32 sort like their bits read as integers, so a radix selection needs one histogram a digit: exact,
    the same on every layout, and a few kB of communication whatever the size of the model.
    """
    if k <= 0:
        return -1.0
    prefix, left = 0, k
    for shift, width in DIGITS:
        counts = total(targets, partial(_histogram, prefix=prefix, shift=shift, width=width), pipeline)
        below = counts.cumsum(0)
        digit = int(torch.searchsorted(below, left))
        left -= int(below[digit - 1]) if digit else 0
        prefix = prefix << width | digit
    return float(torch.tensor(prefix, dtype=torch.int32).view(torch.float32))


def _histogram(piece: Tensor, prefix: int, shift: int, width: int) -> Tensor:
    """How many magnitudes that begin with `prefix` have which next digit [2^width]."""
    bits = piece.detach().abs().float().reshape(-1).view(torch.int32)
    if prefix or shift + width < 31:
        bits = bits[bits >> (shift + width) == prefix]
    return torch.bincount((bits >> shift) & ((1 << width) - 1), minlength=1 << width)
