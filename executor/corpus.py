"""Real text to train on, always there: the source of Python's own standard library, byte by byte.

Every twentieth file is held out. The others are one stretch of bytes, cut into windows of `seq_len` tokens, each with
the byte that follows it; an epoch is one permutation of the windows, drawn from seed and epoch. The position in the
corpus is one number, the sequences drawn so far, so a run goes on where it was on any number of ranks.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from executor.data.library import library
from executor.data.order import Order
from planner.errors import Fault, InputError

HELD_OUT = 20  # every so many files

Bytes = NDArray[np.uint8]
Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """`text` and `held_out` are bytes; sequences have `seq_len` + 1 tokens, the last of which is only predicted."""

    text: Bytes
    held_out: Bytes
    seq_len: int
    seed: int

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the bytes: another version of Python has another library."""
        return hashlib.sha256(self.text.tobytes() + b"\0" + self.held_out.tobytes()).hexdigest()

    @property
    def windows(self) -> int:
        """Sequences of one epoch."""
        return (len(self.text) - 1) // self.seq_len

    def sequences(self, start: int, stop: int) -> Tokens:
        """Sequences number `start` to `stop` of the run [stop - start, seq_len + 1], whatever the epochs between."""
        return _cut(self.text, Order(self.windows, self.seed).numbers(start, stop), self.seq_len)

    def held_out_sequences(self, count: int) -> Tokens:
        """The first `count` sequences of the files held out [at most count, seq_len + 1]."""
        there = (len(self.held_out) - 1) // self.seq_len
        return _cut(self.held_out, np.arange(min(count, there)), self.seq_len)


def load(seq_len: int, seed: int, folder: Path | None = None) -> Corpus:
    """The corpus of this Python, or of the *.py files under `folder`; InputError when there is too little text."""
    text, held_out = _read(folder or Path(sysconfig.get_path("stdlib")))
    if min(len(text), len(held_out)) <= seq_len:
        expected = f"holds too little Python source for sequences of {seq_len} bytes (training {len(text)} B)"
        raise InputError(Fault(str(folder or sysconfig.get_path("stdlib")), expected))
    return Corpus(text, held_out, seq_len, seed)


@cache
def _read(folder: Path) -> tuple[Bytes, Bytes]:
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for number, (_, data) in enumerate(library(folder)):
        parts[number % HELD_OUT == HELD_OUT - 1].append(data)
    text, held_out = (np.frombuffer(b"\n".join(part), dtype=np.uint8) for part in parts)
    return text, held_out


def _cut(text: Bytes, windows: NDArray[np.int64], seq_len: int) -> Tokens:
    cut: Tokens = text[windows[:, None] * seq_len + np.arange(seq_len + 1)].astype(np.int64)
    return cut
