"""Whether the products of this pass leave their weight gradients for later (see `executor.parallel.deferred`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

entered: list[Any] = []
"""What defers weight gradients now, innermost last."""
_at_once: list[bool] = []


@contextmanager
def at_once() -> Iterator[None]:
    """Nothing inside is deferred: for weights that are results themselves, whose gradients must go on."""
    _at_once.append(True)
    try:
        yield
    finally:
        _at_once.pop()


def deferring() -> bool:
    """Whether a product with a trained weight is taken over now."""
    return bool(entered) and not _at_once
