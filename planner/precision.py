"""Number formats of a training run: which peak a matrix multiply uses and what is kept in memory.

Sources: NVIDIA Transformer Engine documentation (fp8 weights with a transposed copy on Hopper; MXFP8 keeps two
orientations of a weight and, for the weight gradient, one of an activation, one scale byte per 32 values; NVFP4 one per
16). Attention, router, embedding and head stay in the base
type: bf16, or fp32 where nothing is reduced.
"""

from __future__ import annotations

from dataclasses import dataclass

BF16, FP32 = 2.0, 4.0  # bytes of a value
LOW_PRECISION = frozenset({"attention", "dense_ffn", "experts", "shared_experts"})
"""Labels of the matrix multiplies that run in the chosen format; router, output and MTP matrices use the base type."""


@dataclass(frozen=True)
class Precision:
    """`peak` names the peak of the profile; the rest is bytes per value.

    `operand` one matrix-multiply operand in HBM, `weight` resident weights, `saved` an activation kept for the weight
    gradient, `cast` traffic to quantize one activation (read bf16, write the format in the orientations needed).
    `base` names the peak and curve of all other multiplies, whose values, like activations and messages, have `value`
    bytes. `master`: the optimizer keeps an fp32 copy of the weights.
    """

    name: str
    peak: str
    operand: float
    weight: float
    saved: float
    cast: float
    base: str = "bf16"
    value: float = BF16
    master: bool = True


PRECISIONS: dict[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("bf16", "bf16", operand=2.0, weight=2.0, saved=2.0, cast=0.0),
        Precision("fp32", "fp32", operand=4.0, weight=4.0, saved=4.0, cast=0.0, base="fp32", value=FP32, master=False),
        Precision("fp8", "fp8", operand=1.0, weight=2.0, saved=1.0, cast=4.0),
        Precision("mxfp8", "fp8", operand=1.03125, weight=2.0625, saved=1.03125, cast=4.0625),
        Precision("nvfp4", "fp4", operand=0.5625, weight=3.125, saved=0.5625, cast=3.125),
    )
}
