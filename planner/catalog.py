"""Models by name or by file: the catalogue, a Hugging Face `config.json`, a model TOML.

`load` is the one door; whatever is wrong with an input comes out as InputError, all faults of a file at once.
"""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from hwprofiles.faults import Fault, InputError, nearest
from planner import residual_network
from planner.families import shape_of_config
from planner.families.table import model_of_table
from planner.model import Model
from planner.shape import Shape, build

SCHEMA_VERSION = 1
LARGEST_FILE = 64 * 2**20  # bytes; the longest real configuration is some hundred kB
SUFFIXES = (".json", ".toml")
LABELS = (
    "embedding",
    "attention",
    "dense_ffn",
    "convolutions",
    "experts",
    "shared_experts",
    "router",
    "norms",
    "head",
    "mtp",
)


def load(name_or_path: str | Path, assume: str | None = None) -> Model:
    """The model of a catalogue name or of a file; `assume` reads a configuration as another `model_type`."""
    text = str(name_or_path)
    path = Path(text)
    if path.suffix.lower() in SUFFIXES or (path.exists() and _entry(text) is None):
        return _load_file(path, assume)
    if assume is not None:
        raise InputError(Fault("assume", "only for a config.json, not for a catalogue name", assume))
    entry = _entry(text)
    if entry is None:
        known = ", ".join(names())
        close = nearest(text.rsplit("/", 1)[-1], _spellings())
        raise InputError(Fault("model", f"not in the catalogue ({known}) and no such file", text, close))
    return _of_catalogue(entry)


def names() -> list[str]:
    """The names of the catalogue that `load` accepts, sorted."""
    return sorted(name for name, table in _tables().items() if "refused" not in table)


def describe(model: Model, seq_len: int) -> dict[str, Any]:
    """What `plan models NAME --json` prints: parameters by part and FLOP per trained token at `seq_len`.

    A model of images has one length of sequence, whatever `seq_len` says.
    """
    seq_len = model.sequence or seq_len
    parts = model.parameters()
    flops = {
        "causal": model.flops_per_token(seq_len, causal=True),
        "full_attention": model.flops_per_token(seq_len, causal=False),
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "name": model.name,
        "family": model.family,
        "provenance": model.provenance,
        "parameters": {
            "total": model.total_parameters(),
            "active": model.total_active(),
            **{label: parts[label] for label in LABELS},
        },
        "model_flops_per_token": {"seq_len": seq_len, **flops},
    }


@cache
def _of_catalogue(name: str) -> Model:
    return model_of_table(_tables()[name], f"catalogue entry {name}", name)


@cache
def _tables() -> dict[str, dict[str, Any]]:
    folder = resources.files("planner") / "data" / "models"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): tomllib.loads(file.read_text("utf-8")) for file in files}


@cache
def _spellings() -> dict[str, str]:
    """Catalogue names and aliases, each with the name of its entry."""
    return {text: name for name, table in _tables().items() for text in (name, *table.get("aliases", []))}


def _entry(text: str) -> str | None:
    """The entry for a name, whatever its case, hyphens and owner ("meta-llama/Llama-3.1-8B")."""
    wanted = _key(text.rsplit("/", 1)[-1])
    return next((name for spelling, name in _spellings().items() if _key(spelling) == wanted), None)


def _key(text: str) -> str:
    return re.sub(r"[-_ .]", "", text).lower()


def _load_file(path: Path, assume: str | None) -> Model:
    where = path.name or str(path)
    text = _read(path, where)
    name = path.parent.resolve().name if path.stem == "config" else path.stem
    if path.suffix.lower() == ".toml":
        if assume is not None:
            raise InputError(Fault("assume", "only for a config.json", assume))
        return model_of_table(_parse_toml(text, where), where, name)
    found = shape_of_config(_parse_json(text, where), where, name, assume)
    return build(found, where) if isinstance(found, Shape) else residual_network.build(found, where)


def _read(path: Path, where: str) -> str:
    try:
        if path.is_dir():
            inside = path / "config.json"
            raise InputError(
                Fault(where, "is a directory; expected a file", nearest=str(inside) if inside.is_file() else None)
            )
        if path.exists() and not path.is_file():
            raise InputError(Fault(where, "isn't a regular file"))
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(Fault(where, f"expected at most {LARGEST_FILE} bytes", path.stat().st_size))
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        others = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(Fault(where, "no such file", nearest=nearest(path.name, others))) from None
    except UnicodeDecodeError as error:
        raise InputError(Fault(where, f"expected UTF-8; byte {error.start} isn't")) from None
    except (OSError, ValueError) as error:
        raise InputError(Fault(where, f"can't be read: {error}")) from None


def _parse_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(Fault(where, f"isn't valid TOML: {error}")) from None


def _parse_json(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        expected = f"isn't valid JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        raise InputError(Fault(where, expected)) from None
    except (ValueError, RecursionError) as error:
        raise InputError(Fault(where, f"isn't valid JSON: {error}")) from None
    if not isinstance(found, dict):
        raise InputError(Fault(where, f"expected a JSON object, found a {type(found).__name__}"))
    return found


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} appears twice")
    return found
