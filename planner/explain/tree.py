"""The tree of formulas behind one plan, as the code that priced it called them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from planner.estimate import estimate
from planner.formula import BOOK, Call, explaining
from planner.plan import Json, Plan


def tree(plan: Plan) -> Json:
    """Each call of a formula: name, unit, source, value, and the calls it made."""
    with explaining() as root:
        estimate(plan.setting, plan.degrees)
    return {"name": "plan", "calls": [_node(call) for call in root.calls]}


def used_formulas(plan: Plan) -> list[Json]:
    """The rows of the formula book that this plan used, by name."""
    with explaining() as root:
        estimate(plan.setting, plan.degrees)
    names = sorted(_names(root))
    return [{key: getattr(BOOK[name], key) for key in ("name", "unit", "source", "doc")} for name in names]


def _names(call: Call) -> set[str]:
    found = {call.formula.name} if call.formula.name in BOOK else set()
    return found.union(*(_names(inner) for inner in call.calls)) if call.calls else found


def _node(call: Call) -> Json:
    row = call.formula
    return {
        "name": row.name,
        "doc": row.doc,
        "unit": row.unit,
        "source": row.source,
        "value": _plain(call.value),
        "inputs": {name: _plain(value) for name, value in call.arguments.items() if _is_small(value)},
        "calls": [_node(inner) for inner in call.calls],
    }


def _is_small(value: Any) -> bool:
    """Numbers, and things with a name: what a reader can check."""
    return isinstance(value, int | float | np.generic | str) or hasattr(value, "name")


def _plain(value: Any) -> Any:
    """A JSON form: numbers as they are, a breakdown by its fields, anything else by its name."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float | np.generic | np.ndarray):
        return float(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "name"):
        return str(value.name)
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return str(value)
