"""Which split a sample belongs to: told by a hash of what it is, so it stays there when others come or go.

Equal samples are in one split, so nothing that is tested was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = range(3)
SCALE = 2**64


def splits(samples: Iterable[bytes], validation: float, test: float) -> NDArray[np.int64]:
    """TRAIN, VALIDATION or TEST of each sample; the last two get about these shares."""
    found = (int.from_bytes(hashlib.blake2b(each, digest_size=8).digest(), "big") / SCALE for each in samples)
    places = np.fromiter(found, dtype=np.float64)
    return np.where(places < test, TEST, np.where(places < test + validation, VALIDATION, TRAIN))
