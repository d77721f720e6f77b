"""How Adam's moments are kept between steps: in bf16, or in 8 bits with one scale for each block of 256 values.

8 bits: Dettmers 2021 (arXiv:2110.02861), block-wise dynamic quantization. A value over the largest of its block is
rounded to the nearest of 256 codes that are spread evenly over seven decades of both signs. Of the second moment the
root is kept, so that both moments have the same range and none of it vanishes beside a first moment that doesn't.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch
from torch import Tensor

BLOCK = 256
DECADES = 7


class Store(Protocol):
    """A form in which a moment is kept: as named tensors."""

    def pack(self, value: Tensor, *, signed: bool) -> dict[str, Tensor]:
        """`value`, fp32 of any shape, as it is kept."""

    def unpack(self, kept: dict[str, Tensor], like: Tensor) -> Tensor:
        """What was kept, fp32 in the shape of `like`."""


class Bf16:
    """Rounded to bf16 (DeepSeek-V3, arXiv:2412.19437, 3.3.3)."""

    def pack(self, value: Tensor, *, signed: bool) -> dict[str, Tensor]:
        """One bf16 tensor."""
        return {"": value.bfloat16()}

    def unpack(self, kept: dict[str, Tensor], like: Tensor) -> Tensor:
        """As fp32."""
        return kept[""].float()


class Blocks8:
    """8-bit codes and one fp32 scale a block, over the flattened local piece."""

    def pack(self, value: Tensor, *, signed: bool) -> dict[str, Tensor]:
        """`codes` [values] uint8, `scales` [blocks] fp32, and `signed`."""
        flat = (value if signed else value.sqrt()).flatten()
        blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
        scales = blocks.abs().amax(1)
        table = codes(signed=signed).to(value.device)
        middles = (table[1:] + table[:-1]) / 2
        scaled = blocks / scales.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)
        found = torch.bucketize(scaled, middles).to(torch.uint8).flatten()[: len(flat)]
        return {".codes": found, ".scales": scales, ".signed": torch.tensor(signed)}

    def unpack(self, kept: dict[str, Tensor], like: Tensor) -> Tensor:
        """Codes times the scales of their blocks."""
        table = codes(signed=bool(kept[".signed"])).to(like.device)
        values = table[kept[".codes"].int()]
        scales = kept[".scales"].repeat_interleave(BLOCK)[: len(values)]
        found = (values * scales).view(like.shape)
        return found if kept[".signed"] else found.square()


@cache
def codes(*, signed: bool) -> Tensor:
    """What each code stands for, ascending [256]: 0, and DECADES decades up to 1, of both signs if `signed`."""
    count = 127 if signed else 255
    above = torch.logspace(-DECADES, 0, count, dtype=torch.float64)
    below = (-above).flip(0) if signed else above.new_empty(0)
    extra = above.new_full((1,), -2.0) if signed else above.new_empty(0)  # never the nearest: keeps 256 entries
    return torch.cat((extra, below, above.new_zeros(1), above)).float()
