"""Expert pruning: fewer routed experts in every mixture, the rest of the model unchanged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from planner.compression.base import Compression, Fact
from planner.errors import Fault, InputError
from planner.layers.base import Linear, Part, Pointwise, Vector
from planner.model import Layer, Model
from planner.precision import BF16


@dataclass(frozen=True)
class Experts(Compression):
    """`kept` experts of each layer stay; a token still visits as many."""

    kept: int = 0
    name: ClassVar[str] = "experts"
    kind: ClassVar[str] = "prune"
    source: ClassVar[str] = "Lu 2024, arXiv:2402.14800: whole experts and their rows of the router are dropped"
    facts: ClassVar[tuple[Fact, ...]] = (
        Fact(
            "whole experts of Mixtral 8x7B can be dropped after training for less memory and more speed; what it costs "
            "depends on the task and on which are dropped",
            "Lu 2024, arXiv:2402.14800",
        ),
        Fact(
            "up to 75 % of the experts of Mixtral 8x7B-Instruct were pruned with small loss by merging the others",
            "EEP, arXiv:2407.00945",
        ),
    )

    @classmethod
    def of(cls, amount: str, where: str) -> Compression:
        """`experts:128` keeps 128 experts a layer."""
        if not amount.isdecimal() or int(amount) < 1:
            raise InputError(Fault(where, "expected experts:COUNT with the experts that stay", amount))
        return cls(int(amount))

    @property
    def spelling(self) -> str:
        """The name with the count."""
        return f"{self.name}:{self.kept}"

    def matrix_bytes(self, outputs: int, inputs: int, value: float = BF16) -> float:
        """The experts that stay are stored as they are."""
        return outputs * inputs * value

    def changed(self, model: Model) -> Model:
        """The model with `kept` experts in each mixture; InputError when it has fewer, or a token visits more."""
        if not model.topk <= self.kept <= model.experts or not model.experts:
            has = f"top {model.topk} of {model.experts} experts" if model.experts else "no experts"
            raise InputError(Fault("--prune", f"{model.name} has {has}; that many can't stay", self.spelling))
        return replace(
            model,
            experts=self.kept,
            kinds=tuple(self._layer(kind, model.experts) for kind in model.kinds),
            mtp=self._layer(model.mtp, model.experts) if model.mtp else None,
        )

    def _layer(self, layer: Layer, experts: int) -> Layer:
        return replace(layer, parts=tuple(self._part(part, experts) for part in layer.parts))

    def _part(self, part: Part, experts: int) -> Part:
        """Copies of experts, the router's outputs and scores, and its correction are of the experts that stay."""
        if isinstance(part, Linear | Vector) and part.expert and part.copies == experts:
            return replace(part, copies=self.kept)
        if isinstance(part, Linear) and part.label == "router":
            return replace(part, outputs=self.kept)
        if isinstance(part, Vector) and part.label == "router" and part.size == experts:
            return replace(part, size=self.kept)
        if isinstance(part, Pointwise) and part.name == "router_scores":
            return replace(part, width=self.kept)
        return part
