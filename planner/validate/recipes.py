"""What the recipe of a published run switches on: its own statement, else that of the published recipe."""

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


@cache
def _table() -> list[dict[str, Any]]:
    text = (resources.files("planner") / "data" / "recipes.toml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)["recipes"]
    return found
