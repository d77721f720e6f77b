"""A way to make a model smaller: what it stores, what it computes, what its training costs, and what is known of it.

Everything is read off the parts of the model. Bytes are of files and of resident weights: one matrix is `outputs` rows
of `inputs` values, and what a method leaves alone keeps `value` bytes a parameter (2: bf16).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from planner.errors import Fault, InputError
from planner.layers.base import Linear, Part, Table, Vector
from planner.model import BACKWARD_OVER_FORWARD, Model
from planner.precision import BF16, LOW_PRECISION


@dataclass(frozen=True)
class Fact:
    """One published finding: what was seen, on what, and where it is written."""

    text: str
    source: str


@dataclass(frozen=True)
class Compression(ABC):
    """One method. `kind` is prune or quantize, `source` says what its bytes and its cost are from.

    While it trains: `sparse` runs forward and dgrad of its matrices on sparse tensor cores, of routed experts too with
    `sparse_experts`; `recast` [B/weight] moves in each forward pass, and again in the backward pass, `input_cast`
    [B/value] with each input of a multiply. `masked` keeps one byte a weight, its mask, and applies it once a step.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    source: ClassVar[str]
    facts: ClassVar[tuple[Fact, ...]] = ()
    sparse: ClassVar[bool] = False
    sparse_experts: ClassVar[bool] = False
    masked: ClassVar[bool] = False
    recast: ClassVar[float] = 0.0
    input_cast: ClassVar[float] = 0.0

    @classmethod
    def of(cls, amount: str, where: str) -> Compression:
        """The method with the text behind its colon; InputError when it takes none."""
        if amount:
            raise InputError(Fault(where, f"{cls.name} takes no amount", f"{cls.name}:{amount}"))
        return cls()

    @property
    def spelling(self) -> str:
        """The method as it is asked for, amount included."""
        return self.name

    @abstractmethod
    def matrix_bytes(self, outputs: int, inputs: int, value: float = BF16) -> float:
        """Bytes [B] of one stored matrix of `outputs` × `inputs` weights."""

    def applies(self, part: Part) -> bool:
        """Whether the matrices of `part` are compressed: those of attention and of feed-forward blocks."""
        return isinstance(part, Linear) and part.label in LOW_PRECISION

    def changed(self, model: Model) -> Model:
        """The model that is trained; another one only where a method takes whole parts away."""
        return model

    def part_bytes(self, part: Part, value: float = BF16) -> float:
        """Bytes [B] of all stored copies of `part`; biases are never compressed."""
        if isinstance(part, Linear):
            whole = part.outputs * part.inputs * value
            each = self.matrix_bytes(part.outputs, part.inputs, value) if self.applies(part) else whole
            return part.copies * (each + part.bias * part.outputs * value)
        if isinstance(part, Vector):
            return part.copies * part.size * value
        return part.rows * part.width * value if isinstance(part, Table) else 0.0

    def stored_bytes(self, model: Model, value: float = BF16) -> float:
        """Bytes [B] of the stored model without prediction modules, a tied output matrix once."""
        layers = list(self.changed(model).stack())
        if model.tied:
            layers = layers[:-1]
        total = sum(self.part_bytes(part, value) for layer in layers for part in layer.parts)
        if not model.tied:
            return total
        others = (part for part in model.head.parts if not (isinstance(part, Linear) and part.label == "head"))
        return total + sum(self.part_bytes(part, value) for part in others)

    def forward_flops(self, part: Part) -> float:
        """FLOP per token that the forward pass of `part` executes; a sparse multiply skips every second one."""
        if not isinstance(part, Linear):
            return 0.0
        return 2.0 * part.inputs * part.outputs * part.active * (0.5 if self.skips(part) else 1.0)

    def training_flops(self, part: Part) -> float:
        """FLOP per token of forward, dgrad and wgrad; the weight gradient is of all weights, so it stays dense."""
        dense = 2.0 * part.inputs * part.outputs * part.active if isinstance(part, Linear) else 0.0
        return BACKWARD_OVER_FORWARD * self.forward_flops(part) + dense

    def skips(self, part: Part) -> bool:
        """Whether the multiplies of `part` run on sparse tensor cores."""
        if not (self.sparse and isinstance(part, Linear) and self.applies(part)):
            return False
        return self.sparse_experts or not part.expert
