"""Number formats of a training run: which peak a matrix multiply uses and what is kept in memory.

Sources: NVIDIA Transformer Engine documentation (fp8 weights with a transposed copy on Hopper; MXFP8 keeps two
orientations, one scale byte per 32 values; NVFP4 one per 16). Attention, router, embedding and head stay in bf16.
"""

from __future__ import annotations

from dataclasses import dataclass

BF16, FP32 = 2.0, 4.0  # bytes of a value
LOW_PRECISION = frozenset({"attention", "dense_ffn", "experts", "shared_experts"})
"""Labels of the matrix multiplies that run in the chosen format; router, output matrix and MTP projection stay bf16."""


@dataclass(frozen=True)
class Precision:
    """`peak` names the peak of the profile; the rest is bytes per value.

    `operand` one matrix-multiply operand in HBM, `weight` resident weights, `saved` an activation kept for the weight
    gradient, `cast` traffic to quantize one activation (read bf16, write the format in the orientations needed).
    """

    name: str
    peak: str
    operand: float
    weight: float
    saved: float
    cast: float


PRECISIONS: dict[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("bf16", "bf16", operand=2.0, weight=2.0, saved=2.0, cast=0.0),
        Precision("fp8", "fp8", operand=1.0, weight=2.0, saved=1.0, cast=4.0),
        Precision("mxfp8", "fp8", operand=1.03125, weight=2.0625, saved=2.0625, cast=4.0625),
        Precision("nvfp4", "fp4", operand=0.5625, weight=3.125, saved=0.5625, cast=3.125),
    )
}
