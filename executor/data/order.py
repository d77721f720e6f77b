"""The order of samples: one permutation an epoch, drawn from seed and epoch; the place in it is one number.

Sample i of a run is entry i mod n of permutation i div n. A batch may take the end of one epoch and the beginning of
the next, so no sample is dropped and none comes twice in an epoch, on any number of ranks and after any restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Order:
    """The order of `count` samples under a seed."""

    count: int
    seed: int

    def numbers(self, start: int, stop: int) -> NDArray[np.int64]:
        """Which samples are number `start` to `stop` of the run [stop - start]."""
        picked = [_permutation(self.seed, i // self.count, self.count)[i % self.count] for i in range(start, stop)]
        return np.array(picked, dtype=np.int64)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(count)
