"""A model as the text of a model TOML that `planner.catalog.load` reads back as the same model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from executor.shapes import shapes
from executor.shrink import DEFAULTS, WHOLE_KEYS, Table, toml
from planner.errors import Fault, InputError
from planner.families.table import KIND_KEYS, model_of_table
from planner.model import Model


def model_toml(model: Model) -> str:
    """The text; InputError for a kind of layer that no table describes."""
    found = table(model)
    if model_of_table(found, model.name, model.name) != model:
        raise InputError(Fault(model.name, "no model TOML describes this model"))
    return toml(found)


def text_of(model: Model, shape: Mapping[str, Any]) -> str:
    """The text of the table that a recipe gives its model, or of the model's own parts when it gave a name."""
    if not shape:
        return model_toml(model)
    given = {"name": model.name, "source": model.provenance or "a recipe", **shape}
    if model.vocab:
        given.setdefault("vocab", model.vocab)
    return toml(given) if "kinds" in given else "".join(f"{key} = {json.dumps(x)}\n" for key, x in given.items())


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
