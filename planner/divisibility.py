"""What a model lets the axes divide: its widths, its sequences; and the divisors of a number."""

from __future__ import annotations

import numpy as np

from planner.layers.base import Convolution, Cut, Linear
from planner.model import Model


def nearest_divisor(total: int, value: int) -> int:
    """The divisor of `total` closest to `value` (the smaller of two equally close)."""
    return min(divisors(total), key=lambda candidate: (abs(candidate - value), candidate))


def divisors(total: int) -> list[int]:
    """All divisors, ascending."""
    low = [candidate for candidate in range(1, int(total**0.5) + 1) if total % candidate == 0]
    return sorted({*low, *(total // candidate for candidate in low)})


def widths(model: Model, *, expert: bool) -> int:
    """The greatest number that divides every width that tp (or etp for experts) cuts; the vocabulary is padded."""
    found = [
        part.outputs if part.cut is Cut.COLUMN else part.inputs
        for layer in (*model.kinds, *((model.mtp,) if model.mtp else ()))
        for part in layer.parts
        if isinstance(part, Linear) and part.expert is expert and part.cut is not Cut.NONE
    ]
    return int(np.gcd.reduce(found)) if found else 0


def whole_sequences(model: Model) -> bool:
    """Whether something works on whole sequences: a classifier, a convolution."""
    return any(layer.sequence_flops() for layer in model.stack())


def convolutional(model: Model) -> bool:
    """Whether its layers are convolutions."""
    return any(isinstance(part, Convolution) for kind in model.kinds for part in kind.parts)
