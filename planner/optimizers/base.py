"""What an optimizer keeps and does for each parameter, and for each matrix where it treats matrices as a whole.

Bytes and FLOP are of one parameter and one step; what the weights themselves cost is the choice of their master copy.
Traffic reads the gradient in fp32, reads and writes the states once, and the weights as the master copy asks.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.precision import BF16, FP32, Precision
from planner.provenance import Fact

ROUNDING = Fact(
    "bf16 weights updated with stochastic rounding reached lower perplexity than fp32 master copies on models up to "
    "6.7B parameters",
    "Ozkara 2025, arXiv:2502.20566",
)
NEAREST = Fact(
    "bf16 weights rounded to the nearest lose small updates: accuracy degrades significantly against mixed precision",
    "Ozkara 2025, arXiv:2502.20566; Zamirai 2020, arXiv:2010.06192",
)
MASTERS: dict[str, tuple[Fact, ...]] = {"fp32": (), "bf16": (NEAREST,), "bf16-stochastic": (ROUNDING,)}


@dataclass(frozen=True)
class Elementwise:
    """An update of each parameter by itself: `state` [B] and `flop` of one, gradient read `reads` times."""

    state: float
    flop: float
    reads: float = 1.0

    def traffic(self, weights: float) -> float:
        """Bytes that the update of one parameter moves; `weights` of them for the weight and its copy."""
        return FP32 * self.reads + 2.0 * self.state + weights


@dataclass(frozen=True)
class Matrixwise:
    """An update of a weight matrix as a whole: per parameter as Elementwise, and `edges` [B] for each row and column.

    `moved` [B/parameter] are further passes. `iterations` of Newton-Schulz need the whole matrix on one rank, in bf16.
    `tables`: embeddings and the output matrix are treated likewise, else elementwise as vectors are.
    """

    state: float
    flop: float
    reads: float = 1.0
    edges: float = 0.0
    moved: float = 0.0
    iterations: int = 0
    tables: bool = False

    def traffic(self, weights: float) -> float:
        """Bytes that the update moves per parameter, without the edges and without Newton-Schulz."""
        return FP32 * self.reads + 2.0 * self.state + self.moved + weights


@dataclass(frozen=True)
class Optimizer:
    """`elementwise` for what `matrix` does not cover, for all parameters where there is none; `facts` on its use."""

    name: str
    elementwise: Elementwise
    source: str
    matrix: Matrixwise | None = None
    facts: tuple[Fact, ...] = ()

    @property
    def hidden(self) -> Elementwise | Matrixwise:
        """How the weight matrices inside the layers are updated."""
        return self.matrix or self.elementwise


def master_bytes(master: str, precision: Precision) -> float:
    """Bytes a parameter of the copy that is updated, beside the resident weights.

    fp32 keeps one unless the weights are fp32 themselves. bf16 updates the resident weights in place, with plain or
    stochastic rounding; fp8 and fp4 formats, whose weights are too coarse for that, keep a bf16 copy.
    Source: Micikevicius 2017, arXiv:1710.03740; Zamirai 2020, arXiv:2010.06192.
    """
    if not precision.master:
        return 0.0
    if master == "fp32":
        return FP32
    return 0.0 if precision.peak == "bf16" else BF16


def weight_traffic(master: str, precision: Precision) -> float:
    """Bytes a parameter that the update of the weights moves: the updated copy read and written, the others written.

    fp32: read 4, write 4, and 2 for the copy that the layers use.
    """
    if master == "fp32":
        return 2.0 * FP32 + BF16
    return 2.0 * BF16 + master_bytes(master, precision)


def newton_schulz_flops(rows: int, columns: int, iterations: int) -> float:
    """FLOP that orthogonalize one matrix: each iteration forms X Xᵀ, its square, and their product with X.

    With m the shorter and n the longer side: iterations · (4 m² n + 2 m³).
    Source: Jordan 2024, kellerjordan.github.io/posts/muon; Liu 2025, arXiv:2502.16982.
    """
    short, long = min(rows, columns), max(rows, columns)
    return iterations * (4.0 * short * short * long + 2.0 * short**3)
