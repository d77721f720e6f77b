"""A TOML table read into a frozen dataclass: every unknown key, wrong value and missing key is a fault, none is raised.

A field says what it takes by its type: `steps: Annotated[int, count()] = 100`; without a default it must be there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from planner.errors import Fault, nearest

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """What a value must be: `accepts` it, else the sentence is `expected`; `convert` makes it what the program uses."""

    expected: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any, Path], Any] = lambda value, folder: value
    known: tuple[str, ...] = ()


def count(least: int = 1, most: int = 10**12) -> Check:
    """A whole number."""
    expected = f"expected a whole number from {least}" + (f" to {most:,}" if most < 10**12 else "")
    return Check(expected, lambda value: type(value) is int and least <= value <= most)


def number(least: float, most: float = math.inf, *, above: bool = False) -> Check:
    """A number in a range; `above`: more than `least`."""
    low = f"above {least:g}" if above else f"from {least:g}"
    expected = f"expected a number {low}" + (f" to {most:g}" if most < math.inf else "")

    def accepts(value: Any) -> bool:
        good = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
        return good and not (above and value == least)

    return Check(expected, accepts, lambda value, folder: float(value))


def choice(*options: str) -> Check:
    """One of some names."""
    return Check(f"expected one of {', '.join(options)}", lambda value: value in options, known=options)


def flag() -> Check:
    """True or false."""
    return Check("expected true or false", lambda value: isinstance(value, bool))


def text() -> Check:
    """Some text."""
    return Check("expected text", lambda value: isinstance(value, str) and bool(value))


def path() -> Check:
    """A path, relative to the recipe's folder."""
    return Check(
        "expected a path", lambda value: isinstance(value, str) and bool(value), lambda value, folder: folder / value
    )


def share_or_path() -> Check:
    """A share of the data from 0 to below 1, or the path of a file of its own."""
    return Check(
        "expected a share from 0 to below 1, or a path",
        lambda value: (isinstance(value, str) and bool(value)) or (type(value) in (int, float) and 0 <= value < 1),
        lambda value, folder: folder / value if isinstance(value, str) else float(value),
    )


def names(*options: str) -> Check:
    """A list of some names."""
    return Check(
        f"expected a list out of {', '.join(options)}",
        lambda value: isinstance(value, list) and all(each in options for each in value),
        lambda value, folder: tuple(value),
        options,
    )


def numbers(least: float, most: float = math.inf, size: int | None = None) -> Check:
    """A list of numbers in a range, `size` of them if given."""
    one = number(least, most)
    many = f"{size} numbers" if size else "a list of numbers"
    return Check(
        one.expected.replace("a number", many),
        lambda value: (
            isinstance(value, list) and (len(value) == size if size else bool(value)) and all(map(one.accepts, value))
        ),
        lambda value, folder: tuple(float(each) for each in value),
    )


def counts() -> Check:
    """A list of whole numbers from 1."""
    return Check(
        "expected a list of whole numbers from 1",
        lambda value: (
            isinstance(value, list) and bool(value) and all(type(each) is int and each >= 1 for each in value)
        ),
        lambda value, folder: tuple(value),
    )


def read(made: type[T], table: Any, where: str, folder: Path, faults: list[Fault]) -> T:
    """An instance of the dataclass `made`; faults are added, and a faulty key has its default or a stand-in None."""
    if not isinstance(table, Mapping):
        faults.append(Fault(where, "expected a table", table))
        table = {}
    known = {each.name: each.default for each in fields(made)}  # type: ignore[arg-type]
    checks = {name: hint.__metadata__[0] for name, hint in get_type_hints(made, include_extras=True).items()}
    faults += [
        Fault(f"{where}.{name}", "no such key", nearest=nearest(name, known)) for name in table if name not in known
    ]
    found: dict[str, Any] = {}
    for name, default in known.items():
        check: Check = checks[name]
        value = table.get(name)
        if name in table and check.accepts(value):
            found[name] = check.convert(value, folder)
            continue
        if name in table:
            close = nearest(value, check.known) if isinstance(value, str) and check.known else None
            faults.append(Fault(f"{where}.{name}", check.expected, value, close))
        elif default is MISSING:
            faults.append(Fault(f"{where}.{name}", "is missing"))
        found[name] = None if default is MISSING else default
    return made(**found)
