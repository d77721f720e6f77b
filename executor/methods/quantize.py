"""Weights in int8, int4 and fp8: scales, rounding, packing, and what they come to in bytes.

Symmetric, to the nearest, nothing clipped: the largest magnitude of a row (or of a group of its inputs) is the largest
code, so a weight moves by at most half a scale. A row is all that one output is computed from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from executor.methods.targets import rows, unrows

MOST = {8: 127, 4: 7}  # largest code by bits
OFFSET = 8  # int4 codes -7..7 are stored as 1..15
FP8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
"""Micikevicius 2022 (arXiv:2209.05433): e4m3 for weights and inputs, e5m2 for gradients."""
TINY = 1e-12  # a row of zeros keeps a scale


@dataclass(frozen=True)
class Codes:
    """Whole codes and scales of a weight: `codes` int8 [outputs, inputs], `scale` fp32 [outputs, groups of inputs]."""

    codes: Tensor
    scale: Tensor
    bits: int
    group: int
    shape: torch.Size

    @property
    def nbytes(self) -> int:
        """Bytes as stored: codes packed, scales in fp32."""
        return self.codes.size(0) * packed_bytes(self.codes.size(1), self.bits) + self.scale.numel() * 4

    def weight(self) -> Tensor:
        """The weight that the codes stand for, fp32."""
        return unrows(scaled(self.codes.float(), self.scale, self.group), self.shape)


def quantize(weight: Tensor, bits: int, group: int = 0) -> Codes:
    """A weight in `bits` (8, 4), a scale for each output, or for each `group` of its inputs (the last may be short)."""
    matrix = rows(weight.detach()).float()
    scale = scales(matrix, bits, group)
    return Codes(rounded(matrix, scale, bits, group).to(torch.int8), scale, bits, group, weight.shape)


def scales(matrix: Tensor, bits: int, group: int = 0) -> Tensor:
    """The largest magnitude of each row or group over the largest code: [outputs, inputs] -> [outputs, groups]."""
    return largest(matrix, group) / MOST[bits]


def largest(matrix: Tensor, group: int = 0) -> Tensor:
    """Largest magnitudes of the rows [outputs, 1], or of each `group` of their inputs [outputs, groups]."""
    if not group or group >= matrix.size(1):
        return matrix.abs().amax(1, keepdim=True).clamp(min=TINY)
    short = -matrix.size(1) % group
    padded = torch.nn.functional.pad(matrix, (0, short)) if short else matrix
    most: Tensor = padded.unflatten(1, (-1, group)).abs().amax(-1).clamp(min=TINY)
    return most


def scaled(codes: Tensor, scale: Tensor, group: int = 0) -> Tensor:
    """Codes [outputs, inputs] times the scales of their row or group."""
    return codes * _wide(scale, codes.size(1), group)


def rounded(matrix: Tensor, scale: Tensor, bits: int, group: int = 0) -> Tensor:
    """The nearest codes of a matrix [outputs, inputs], still in floating point."""
    return (matrix / _wide(scale, matrix.size(1), group)).round().clamp(-MOST[bits], MOST[bits])


def _wide(scale: Tensor, inputs: int, group: int) -> Tensor:
    """Scales for each input: [outputs, groups] -> [outputs, inputs], or as they are when one row has one."""
    return scale if scale.size(1) == 1 else scale.repeat_interleave(group, 1)[:, :inputs]


def pack(codes: Tensor) -> Tensor:
    """int4 codes [outputs, inputs] two a byte: uint8 [outputs, ceil(inputs / 2)], the even input in the low half."""
    low = (codes + OFFSET).to(torch.uint8)
    if low.size(1) % 2:
        low = torch.nn.functional.pad(low, (0, 1))
    return low[:, ::2] | (low[:, 1::2] << 4)


def unpack(packed: Tensor, inputs: int) -> Tensor:
    """The inverse of `pack`: int8 [outputs, inputs]."""
    pairs = torch.stack((packed & 15, packed >> 4), -1).flatten(1)
    return pairs[:, :inputs].to(torch.int8) - OFFSET


def packed_bytes(inputs: int, bits: int) -> int:
    """Bytes of one row of codes."""
    return -(-inputs * bits // 8)


def fake(weight: Tensor, bits: int, scale: Tensor, group: int = 0) -> Tensor:
    """What a weight would be after quantization with `scale` (of its rows), in its own type and shape."""
    matrix = rows(weight.detach()).float()
    return unrows(scaled(rounded(matrix, scale, bits, group), scale, group), weight.shape).to(weight.dtype)


def cast_fp8(values: Tensor, form: str, most: Tensor | None = None) -> Tensor:
    """Values rounded to fp8 `form` with one scale for the tensor, back in their own type.

    `most` is the largest magnitude when other ranks hold parts of the tensor. The scale puts it at the largest fp8
    number (current scaling, as in Transformer Engine).
    """
    kind = FP8[form]
    most = values.detach().abs().amax() if most is None else most
    scale = torch.finfo(kind).max / most.float().clamp(min=TINY)
    return ((values.float() * scale).to(kind).float() / scale).to(values.dtype)
