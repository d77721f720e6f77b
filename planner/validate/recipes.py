"""What the recipe of a published run switches on, and where its software differs from its stack."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from typing import Any

from planner.validate.read import Row

MATCHED = ("framework", "model", "gpu")


def recipe(row: Row) -> Row:
    """The switches of a row of a mixture of experts, in the words of Megatron-Bridge; empty where nothing tells."""
    extra = row.get("extra") or {}
    stated = extra.get("recipe")
    if stated or not row["model"].get("moe"):
        return stated or {}
    shown = {
        "framework": f"{row.get('framework')} {row.get('precision')} {row.get('source')} {extra.get('feature')}",
        "model": str(row["model"].get("name")),
        "gpu": str(row["hardware"].get("gpu")),
    }
    fitting = (entry for entry in _table() if all(re.search(entry[key], shown[key]) for key in MATCHED))
    return next(fitting, {})


def software(row: Row) -> dict[str, Any]:
    """Fields of the stack in which the run's software differs from it."""
    words = (row.get("framework"), row.get("source"), row.get("precision"), row["parallel"].get("zero"))
    shown = " ".join(str(word) for word in words)
    fitting = (entry for entry in _facts() if re.search(entry["pattern"], shown))
    return {name: value for name, value in next(fitting, {}).items() if name not in ("pattern", "source")}


@cache
def _table() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _data("recipes.toml")["recipes"]
    return found


@cache
def _facts() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _data("software.toml")["facts"]
    return found


def _data(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files("planner") / "data" / name).read_text(encoding="utf-8"))
