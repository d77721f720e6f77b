"""A formula: a pure function of numbers or arrays of numbers that knows its unit and its source.

`@formula` leaves the function and its result alone. Inside `with explaining() as tree:` each call of a formula
appends a node, so that one plan explains itself with the code that prices a million.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

Num = float | NDArray[np.floating[Any]]
Count = int | NDArray[np.integer[Any]]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Formula:
    """A row of the formula book: `name` (module.function), `unit`, `source`, `doc` (first line)."""

    name: str
    unit: str
    source: str
    doc: str


@dataclass
class Call:
    """One call of a formula while explaining: its row in the book, value, arguments and the calls it made."""

    formula: Formula
    value: Any = None
    arguments: dict[str, Any] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)


BOOK: dict[str, Formula] = {}
_open: list[Call] = []


def formula(unit: str, source: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a formula with the unit of its result and where it comes from."""

    def register(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{function.__module__.removeprefix('planner.')}.{function.__qualname__}"
        row = Formula(name, unit, source, (function.__doc__ or "").strip().split("\n")[0])
        BOOK[name] = row
        signature = inspect.signature(function)

        @functools.wraps(function)
        def observed(*args: P.args, **kwargs: P.kwargs) -> R:
            if not _open:
                return function(*args, **kwargs)
            call = Call(row, arguments=dict(signature.bind(*args, **kwargs).arguments))
            _open[-1].calls.append(call)
            _open.append(call)
            try:
                value = function(*args, **kwargs)
            finally:
                _open.pop()
            call.value = value
            return value

        return observed

    return register


@contextmanager
def explaining() -> Iterator[Call]:
    """Record every formula called inside the block, as a tree under the yielded root."""
    root = Call(Formula("plan", "", "", ""))
    _open.append(root)
    try:
        yield root
    finally:
        _open.pop()
