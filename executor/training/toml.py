"""A table as TOML text: what the standard library reads and doesn't write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Values first, then the tables below, each under its [dotted.name]; numbers, text, lists and tables alone."""
    own = [f"{_key(name)} = {_value(value)}" for name, value in table.items() if not isinstance(value, Mapping)]
    blocks = ["\n".join(([f"[{'.'.join(map(_key, path))}]"] if path and (own or not table) else []) + own)]
    blocks += [toml(value, (*path, name)) for name, value in table.items() if isinstance(value, Mapping)]
    return "\n\n".join(block.rstrip("\n") for block in blocks if block) + "\n"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
