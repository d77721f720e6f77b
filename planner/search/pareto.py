"""The best by a key, and the Pareto frontier of step time against peak memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def best(first: Floats, second: Floats, count: int) -> Ints:
    """Positions of the `count` least by `first`, ties by `second`, then by position; in that order."""
    if len(first) > count:
        bar = np.partition(first, count - 1)[count - 1]
        pool = np.flatnonzero(first <= bar)
    else:
        pool = np.arange(len(first))
    order = np.lexsort((pool, second[pool], first[pool]))
    return np.asarray(pool[order][:count], dtype=np.int64)


def frontier(time: Floats, memory: Floats) -> Ints:
    """Positions of the candidates that no other beats in both, by ascending time."""
    order = np.lexsort((memory, time))
    lowest = np.minimum.accumulate(memory[order])
    before = np.concatenate(([np.inf], lowest[:-1]))
    return np.asarray(order[memory[order] < before], dtype=np.int64)
