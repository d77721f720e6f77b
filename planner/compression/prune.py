"""Pruning of weights: two of four in a row (2:4), which tensor cores skip, or any, which only storage feels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from planner.compression.base import Compression, Fact
from planner.errors import Fault, InputError
from planner.layers.base import Linear, Part
from planner.precision import BF16

GROUP = 4  # weights in a row of inputs, of which two stay
INDEX_BITS = 2.0  # of a kept weight: its place among four
SPARSE_GAIN = 1.5
"""Achieved speed of a 2:4 multiply over the dense one. Derived from torchao pull request 184 (A100, ViT-L MLP, forward
and backward 11,534 -> 9,205 us with 255 us to sparsify): two of three multiplies sparse at gain g and the third dense
give 1/3 + (2/3)/g + 0.022 = 0.798. Its README has 1.24 and 1.27 for one layer, whose g is 1.41 to 1.48."""

RETAINED = Fact(
    "2:4 networks kept the accuracy of the dense ones on the vision and language tasks tried, after training again "
    "with the mask fixed",
    "Mishra 2021, arXiv:2104.08378",
)
TRAINED = Fact(
    "ViT-L trained 2:4 for 70 % of the steps and dense for the rest reached 82.7 % where dense reached 82.8 %, 6 % "
    "faster from end to end on A100",
    "PyTorch blog, Accelerating neural network training with semi-structured sparsity, 2024",
)
FLIPS = Fact(
    "pre-training with 2:4 feed-forward blocks needs a decay on pruned weights and dense steps at the end to follow "
    "the dense loss",
    "Hu 2024, arXiv:2404.01847",
)


@dataclass(frozen=True)
class TwoOfFour(Compression):
    """Two weights of every four in a row stay, with two bits each for their place; experts run in dense kernels."""

    name: ClassVar[str] = "2:4"
    kind: ClassVar[str] = "prune"
    source: ClassVar[str] = "Mishra 2021, arXiv:2104.08378: half the values and two bits for each; torchao pull 184"
    facts: ClassVar[tuple[Fact, ...]] = (RETAINED, TRAINED, FLIPS)
    sparse: ClassVar[bool] = True

    def applies(self, part: Part) -> bool:
        """Matrices whose rows are whole groups of four."""
        return super().applies(part) and isinstance(part, Linear) and part.inputs % GROUP == 0

    def matrix_bytes(self, outputs: int, inputs: int, value: float = BF16) -> float:
        """outputs · inputs / 2 values, and as many indices of two bits."""
        kept = outputs * inputs // 2
        return kept * value + math.ceil(kept * INDEX_BITS / 8)


@dataclass(frozen=True)
class TwoOfFourExperts(TwoOfFour):
    """As 2:4, with a sparse grouped kernel for the routed experts; torch and cuSPARSELt have none."""

    name: ClassVar[str] = "2:4-experts"
    facts: ClassVar[tuple[Fact, ...]] = (
        *TwoOfFour.facts,
        Fact(
            "sparse kernels for experts exist in research code alone; its gain is taken to be that of a dense layer",
            "Samoyeds, arXiv:2503.10725",
        ),
    )
    sparse_experts: ClassVar[bool] = True


@dataclass(frozen=True)
class Unstructured(Compression):
    """The share `sparsity` of the weights of each matrix is zero; stored as one bit a weight and the others' values."""

    sparsity: float = 0.5
    name: ClassVar[str] = "unstructured"
    kind: ClassVar[str] = "prune"
    source: ClassVar[str] = (
        "a bitmap and the kept values; Mishra 2021, arXiv:2104.08378: matrix units gain nothing from it"
    )
    facts: ClassVar[tuple[Fact, ...]] = (
        Fact(
            "Mixtral 8x7B with half of its weights pruned kept 99 % of its scores after expert-wise distillation",
            "MoE-Pruner, arXiv:2410.12013",
        ),
    )
    masked: ClassVar[bool] = True

    @classmethod
    def of(cls, amount: str, where: str) -> Compression:
        """`unstructured:0.9` prunes nine of ten weights; half of them without a number."""
        try:
            share = float(amount) if amount else cls.sparsity
        except ValueError:
            share = math.nan
        if not 0.0 < share < 1.0:
            raise InputError(Fault(where, "expected unstructured:SHARE with a share between 0 and 1", amount))
        return cls(share)

    @property
    def spelling(self) -> str:
        """The name with the share."""
        return f"{self.name}:{self.sparsity:g}"

    def matrix_bytes(self, outputs: int, inputs: int, value: float = BF16) -> float:
        """One bit a weight, `value` bytes for each that stays; round(share · weights) do not."""
        weights = outputs * inputs
        return math.ceil(weights / 8) + (weights - round(self.sparsity * weights)) * value
