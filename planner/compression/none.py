"""Nothing compressed: the model as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from planner.compression.base import Compression
from planner.precision import BF16


@dataclass(frozen=True)
class Dense(Compression):
    """All weights, `value` bytes each."""

    name: ClassVar[str] = "none"
    kind: ClassVar[str] = "none"
    source: ClassVar[str] = "parameters times bytes"

    def matrix_bytes(self, outputs: int, inputs: int, value: float = BF16) -> float:
        """outputs · inputs · value."""
        return outputs * inputs * value
