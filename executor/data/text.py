"""Text for language models, byte by byte: files cut into windows of `seq_len` tokens, each with the byte behind it.

Splits are of whole files where there are many, else of blocks, so that no window straddles two of them. What is left
of a split behind its last whole window (fewer than seq_len bytes) is told in the facts.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from executor.data.base import Arrays, Dataset, Numbers, fingerprint
from executor.data.library import library
from executor.data.rows import SUFFIXES, column
from executor.data.shares import TEST, TRAIN, VALIDATION, splits
from planner.errors import Fault, InputError

MANY = 20  # files; of fewer the blocks are split
BLOCK = 1024  # bytes
LARGEST = 256 * 2**20  # bytes read; more belongs into a tokenised store
BYTES = 256

Document = tuple[str, bytes]


@dataclass(frozen=True)
class Windows:
    """A split of `text` [bytes]."""

    text: NDArray[np.uint8]
    seq_len: int

    def __len__(self) -> int:
        """Windows with a byte behind them."""
        return max((len(self.text) - 1) // self.seq_len, 0)

    def take(self, numbers: Numbers) -> Arrays:
        """Token ids [samples, seq_len + 1], the last column only predicted."""
        return (self.text[numbers[:, None] * self.seq_len + np.arange(self.seq_len + 1)].astype(np.int64),)


def text(
    path: Path | None, pattern: str, field: str, seq_len: int, shares: tuple[float | Path, float | Path]
) -> Dataset:
    """The windows of a file, of a folder's files or of a table's `field`; `path` None is Python's standard library.

    `shares` of validation and test, or where they are.
    """
    given = [each if isinstance(each, float) else 0.0 for each in shares]
    found = list(_documents(path, pattern, field))
    many = len(found) >= MANY
    parts = found if many else [piece for each in found for piece in _blocks(each)]
    where = splits((f"{name}\0".encode() + content[:BLOCK] for name, content in parts), *given)
    joined = [
        (b"\n" if many else b"").join(parts[i][1] for i in np.flatnonzero(where == split))
        for split in (TRAIN, VALIDATION, TEST)
    ]
    for split, share in zip((VALIDATION, TEST), shares, strict=True):
        if isinstance(share, Path):
            joined[split] = b"\n".join(content for _, content in _documents(share, pattern, field))
    if len(joined[TRAIN]) <= seq_len:
        expected = f"holds too little text to train on sequences of {seq_len} bytes"
        raise InputError(Fault(str(path or "the standard library"), expected, f"{len(joined[TRAIN])} B"))
    windows = [Windows(np.frombuffer(each, dtype=np.uint8), seq_len) for each in joined]
    facts = {
        "documents": len(found),
        "bytes": [len(each) for each in joined],
        "bytes_behind_the_last_window": [len(each.text) - len(each) * seq_len for each in windows],
    }
    train, validation, test = windows
    return Dataset(
        "python" if path is None else "text",
        "language-model",
        train,
        validation,
        test,
        fingerprint(joined),
        vocabulary=BYTES,
        shape=(seq_len,),
        facts=facts,
    )


def _documents(path: Path | None, pattern: str, field: str) -> Iterator[Document]:
    """Name and bytes of each document, in order of the names."""
    if path is None:
        yield from library(Path(sysconfig.get_path("stdlib")))
    elif path.is_file() and path.suffix in SUFFIXES:
        yield from ((str(number), each.encode()) for number, each in enumerate(column(path, field)))
    else:
        yield from _files(path, pattern)


def _files(path: Path, pattern: str) -> Iterator[Document]:
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(each for each in path.rglob(pattern) if each.is_file())
    else:
        raise InputError(Fault(str(path), "no such file or folder"))
    if not files:
        raise InputError(Fault(str(path), f"has no files {pattern}"))
    size = sum(each.stat().st_size for each in files)
    if size > LARGEST:
        raise InputError(Fault(str(path), f"expected at most {LARGEST // 2**20} MiB of text", f"{size} B"))
    yield from ((each.name if path == each else str(each.relative_to(path)), each.read_bytes()) for each in files)


def _blocks(document: Document) -> Iterator[Document]:
    name, content = document
    for start in range(0, len(content), BLOCK):
        yield f"{name}/{start}", content[start : start + BLOCK]
