"""Quantization: weights of eight or four bits when stored, fake-quantized while trained for it; fp8 multiplies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from planner.compression.base import Compression, Fact
from planner.precision import BF16, FP32

GROUP = 128  # inputs that share a scale at four bits
READ_AND_WRITE = 2.0 * BF16  # a fake-quantized copy: read in bf16, written in bf16

LOW_BITS = Fact(
    "LLaMA 3 loses little at 8 bits and visibly at low bit widths; the fewer the bits the more depends on the method",
    "Huang 2024, arXiv:2404.14047",
)
AWARE = Fact(
    "training with quantization in the forward pass (QAT) recovers more than quantizing afterwards, for less than "
    "0.1 % more training",
    "SiLQ, arXiv:2507.16933",
)


@dataclass(frozen=True)
class Int8(Compression):
    """Weights of one byte, symmetric, one fp32 scale for each row (output channel)."""

    name: ClassVar[str] = "int8"
    kind: ClassVar[str] = "quantize"
    source: ClassVar[str] = (
        "Jacob 2018, arXiv:1712.05877: fake quantization in each forward pass, straight through back"
    )
    facts: ClassVar[tuple[Fact, ...]] = (LOW_BITS, AWARE)
    recast: ClassVar[float] = READ_AND_WRITE

    def matrix_bytes(self, outputs: int, inputs: int, value: float = BF16) -> float:
        """outputs · inputs codes and outputs scales of four bytes."""
        return outputs * inputs + FP32 * outputs


@dataclass(frozen=True)
class Int8Dynamic(Int8):
    """As int8, and each token's activations are quantized on the fly: their fake quantization is trained with too."""

    name: ClassVar[str] = "int8-dynamic"
    input_cast: ClassVar[float] = READ_AND_WRITE


@dataclass(frozen=True)
class Int4(Compression):
    """Two weights a byte, symmetric, one fp32 scale for each group of 128 inputs of a row."""

    name: ClassVar[str] = "int4"
    kind: ClassVar[str] = "quantize"
    source: ClassVar[str] = "Frantar 2022, arXiv:2210.17323 (groups of 128); Jacob 2018, arXiv:1712.05877 (training)"
    facts: ClassVar[tuple[Fact, ...]] = (LOW_BITS, AWARE)
    recast: ClassVar[float] = READ_AND_WRITE

    def matrix_bytes(self, outputs: int, inputs: int, value: float = BF16) -> float:
        """A row takes half a byte an input, rounded up, and a scale of four bytes a group."""
        return outputs * (math.ceil(inputs / 2) + FP32 * math.ceil(inputs / GROUP))


@dataclass(frozen=True)
class Fp8(Compression):
    """Multiplies in fp8 (the plan's precision says which kind); stored weights of one byte, one fp32 scale a matrix."""

    name: ClassVar[str] = "fp8"
    kind: ClassVar[str] = "quantize"
    source: ClassVar[str] = "Micikevicius 2022, arXiv:2209.05433: one byte a value, one scale a tensor"
    facts: ClassVar[tuple[Fact, ...]] = (
        Fact(
            "the loss of DeepSeek-V3's fp8 training stayed within 0.25 % of bf16 on models of 16B and 230B parameters",
            "DeepSeek-V3, arXiv:2412.19437, section 3.3",
        ),
    )

    def matrix_bytes(self, outputs: int, inputs: int, value: float = BF16) -> float:
        """outputs · inputs codes and one scale of four bytes."""
        return outputs * inputs + FP32
