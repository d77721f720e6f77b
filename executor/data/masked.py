"""Windows of text for masked language models: 15 % of the tokens are to be guessed (BERT, arXiv:1810.04805, 3.1).

Of those 80 % are hidden, 10 % replaced by a token at random and 10 % left. Which ones is drawn from the seed and the
sample's number, so a sample looks the same in every epoch and on any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from executor.data.base import Arrays, Numbers
from executor.data.text import BYTES, Windows

GUESSED, HIDDEN, RANDOM = 0.15, 0.8, 0.1
MASK = 0  # the id that hides a token; no text has this byte
IGNORED = -100  # executor.objective's, which needs torch


@dataclass(frozen=True)
class Masked:
    """A split of `windows`; `seed` of what is hidden."""

    windows: Windows
    seed: int

    def __len__(self) -> int:
        """Windows."""
        return len(self.windows)

    def take(self, numbers: Numbers) -> Arrays:
        """Token ids [samples, seq_len] with some hidden, and labels [samples, seq_len], IGNORED where nothing is."""
        (tokens,) = self.windows.take(numbers)
        ids = tokens[:, :-1].copy()
        labels = np.full_like(ids, IGNORED)
        for row, number in enumerate(numbers):
            generator = np.random.default_rng([self.seed, int(number)])
            guessed = np.less(generator.random(ids.shape[1]), GUESSED)
            guessed[generator.integers(ids.shape[1])] = True  # every sample has something to guess
            labels[row, guessed] = ids[row, guessed]
            how = generator.random(ids.shape[1])
            ids[row, guessed & (how < HIDDEN)] = MASK
            other = np.flatnonzero(guessed & (how >= HIDDEN) & (how < HIDDEN + RANDOM))
            ids[row, other] = generator.integers(1, BYTES, len(other))
        return ids, labels
