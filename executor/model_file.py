"""A model as the text of a model TOML that `planner.catalog.load` reads back as the same model."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from executor.shapes import shapes
from executor.shrink import DEFAULTS, WHOLE_KEYS, Table, toml
from planner.errors import Fault, InputError
from planner.families.table import KIND_KEYS, model_of_table
from planner.layers.base import Linear
from planner.model import Model


def model_toml(model: Model) -> str:
    """The text; InputError for a kind of layer that no table describes."""
    found = table(model)
    if model_of_table(found, model.name, model.name) != model:
        raise InputError(Fault(model.name, "no model TOML describes this model"))
    return toml(found)


def text_of(model: Model, shape: Mapping[str, Any], name: str | None = None) -> str:
    """The text of the table that a recipe gives its model, of the file or catalogue entry it names, or of its parts.

    `shape` are the recipe's own keys, `name` what it names instead. InputError when none of them gives this model.
    """
    made = _given(model, shape) if shape else _named(model, name) or model_toml(model)
    if model_of_table(tomllib.loads(made), model.name, model.name) != model:
        raise InputError(Fault(model.name, "no model TOML describes this model"))
    return made


def _given(model: Model, shape: Mapping[str, Any]) -> str:
    """A recipe's keys, with what its data added."""
    given = {"name": model.name, "source": model.provenance or "a recipe", **shape}
    if model.vocab:
        given.setdefault("vocab", model.vocab)
    if model.predicts == "classes":
        given.setdefault("classes", answers(model))
    return toml(given) if "kinds" in given else "".join(f"{key} = {json.dumps(x)}\n" for key, x in given.items())


def _named(model: Model, name: str | None) -> str | None:
    """The TOML that a recipe names, with the model's name in it; None for another file."""
    own = Path(name or "")
    entry = resources.files("planner") / "data" / "models" / f"{model.name}.toml"
    if own.suffix == ".toml" and own.is_file():
        text = own.read_text("utf-8-sig")
    elif not own.suffix and entry.is_file():
        text = entry.read_text("utf-8")
    else:
        return None
    return text if "name" in tomllib.loads(text) else f"name = {json.dumps(model.name)}\n{text}"


def answers(model: Model) -> int:
    """Tokens or classes that a model tells apart."""
    return [part.outputs for part in model.head.parts if isinstance(part, Linear)][-1]


def table(model: Model) -> Table:
    """The table of the TOML: each kind of layer by its own fields, and their order."""
    found = shapes(model)
    kinds = {}
    for kind, shape in zip(model.kinds, found.kinds, strict=True):
        own = {key: getattr(shape, key) for key in KIND_KEYS if key in DEFAULTS}
        kinds[kind.name] = {"reach": shape.reach(0)} | {key: x for key, x in own.items() if x != DEFAULTS[key]}
    return {
        "name": model.name,
        "source": model.provenance or "a trained model",
        "hidden": model.hidden,
        "vocab": model.vocab,
        "heads": model.heads,
        "positions": found.whole.positions,
        "mtp_layers": model.mtp_layers,
        **{key: getattr(found.whole, key) for key in WHOLE_KEYS},
        "kinds": kinds,
        "order": [{"kind": model.kinds[kind].name, "count": len(list(run))} for kind, run in groupby(model.order)],
    }
