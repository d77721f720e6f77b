"""Ways to make a model smaller, by name: every file of this folder that defines a `Compression` is in `METHODS`."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import Any

from planner.compression.base import Compression, Fact
from planner.errors import Fault, InputError, nearest

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Compression", "Fact", "get", "names"]


def _all(method: Any) -> list[type[Compression]]:
    """The method's kinds, theirs too."""
    return [each for kind in method.__subclasses__() for each in (kind, *_all(kind))]


METHODS: dict[str, type[Compression]] = {
    method.name: method for method in sorted(_all(Compression), key=lambda each: each.name)
}


def names(kind: str) -> list[str]:
    """The methods of a kind (prune or quantize), none first."""
    return ["none", *(name for name, method in METHODS.items() if method.kind == kind)]


@cache
def get(text: str, kind: str = "", where: str = "compression") -> Compression:
    """The method for `2:4`, `unstructured:0.9`, `int4`…; InputError with the nearest when there is none of the kind."""
    known = names(kind) if kind else list(METHODS)
    name, _, amount = (text, "", "") if text in METHODS else text.partition(":")
    if name not in known:
        raise InputError(Fault(where, f"expected one of {', '.join(known)}", text, nearest(name, known)))
    return METHODS[name].of(amount, where)
