"""The source of Python's own standard library, file by file: real text that is always there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

LARGEST = 8 * 2**20  # bytes read; small models see less than that
SKIPPED = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"})


def library(folder: Path, most: int = LARGEST) -> Iterator[tuple[str, bytes]]:
    """Name below `folder` and content of its *.py files, sorted, tests left out, up to `most` bytes in all."""
    size = 0
    for path in sorted(path for path in folder.rglob("*.py") if not SKIPPED & set(path.relative_to(folder).parts)):
        data = path.read_bytes()
        size += len(data)
        if size > most:
            return
        yield str(path.relative_to(folder)), data
