"""A data set: three splits of samples that are taken by number, and what the training must know of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Arrays = tuple[NDArray[Any], ...]


class Split(Protocol):
    """Samples by number, 0 to len - 1."""

    def __len__(self) -> int:
        """How many there are."""

    def take(self, numbers: Numbers) -> Arrays:
        """The samples of these numbers, one along dim 0 of each array, as the objective's batch has them."""


@dataclass(frozen=True)
class Dataset:
    """`objective` that the samples are for; `vocabulary` of token ids, names of `classes` in order of their label.

    `shape` of one input without the batch; `fingerprint` a hash of all samples; `facts` for training.json.
    """

    kind: str
    objective: str
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    vocabulary: int = 0
    classes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """A split whose arrays lie in memory, one sample a row."""

    arrays: Arrays

    def __len__(self) -> int:
        """Rows."""
        return len(self.arrays[0])

    def take(self, numbers: Numbers) -> Arrays:
        """Those rows."""
        return tuple(array[numbers] for array in self.arrays)


def fingerprint(parts: Iterable[bytes]) -> str:
    """One hash of some bytes in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
