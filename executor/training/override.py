"""Keys of a recipe set from outside its file: `--set run.steps=20`, `--ranks 4`, a trial of a search."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from planner.errors import Fault, InputError


def changed(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a recipe's table with values at dotted keys; the path of a table is made where it is missing."""
    found: dict[str, Any] = copy.deepcopy(dict(table))
    for dotted, value in changes.items():
        *path, last = dotted.split(".")
        place = found
        for step in path:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise InputError(Fault(f"--set {dotted}", f"{step} is no table"))
        place[last] = value
    return found


def parsed(texts: Iterable[str]) -> dict[str, Any]:
    """`KEY=VALUE` by dotted key, the value in TOML or else as text; InputError with all that are none."""
    found, faults = {}, []
    for text in texts:
        dotted, equals, value = text.partition("=")
        if not equals or not all(dotted.split(".")) or "." not in dotted:
            faults.append(Fault("--set", "expected TABLE.KEY=VALUE, as in run.steps=20", text))
            continue
        try:
            found[dotted.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[dotted.strip()] = value.strip()
    if faults:
        raise InputError(*faults)
    return found


def on_ranks(table: Mapping[str, Any], ranks: int) -> dict[str, Any]:
    """The table with as much data parallelism as `ranks` leave; InputError when the other axes don't divide them."""
    parallel = table.get("parallel", {})
    fixed = 1
    for axis in ("tp", "pp", "cp"):
        degree = parallel.get(axis, 1) if isinstance(parallel, Mapping) else 1
        fixed *= degree if isinstance(degree, int) and degree > 0 else 1
    if ranks % fixed:
        raise InputError(Fault("--ranks", f"must be a multiple of tp · pp · cp = {fixed}", ranks, str(fixed)))
    return changed(table, {"parallel.dp": ranks // fixed})
