"""Reads an exported folder back, after checking all of it: a model ready to predict, or one sentence for each fault."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from executor.export import (
    FORMS,
    KINDS,
    MANIFEST,
    MAP,
    SCHEMA_VERSION,
    TASKS,
    TOML,
    WEIGHTS,
    Facts,
    digest,
    safetensors,
)
from executor.layers.router import routing_of
from executor.methods import codecs, layers
from executor.methods.experts import fewer, redirect
from executor.methods.quantize import Codes, unpack
from executor.model import build
from planner.catalog import load as load_model
from planner.errors import Fault, InputError
from planner.model import Model

INTEGER = ("int8", "int4", "int8-dynamic")  # forms whose matrices stay in codes


@dataclass(frozen=True)
class Deployed:
    """`module` predicts (evaluation mode); `model` is the planner's, `facts` and `manifest` what the folder says."""

    folder: Path
    model: Model
    module: nn.Module
    facts: Facts
    manifest: Mapping[str, Any]


def load(folder: Path, *, codes: bool = True) -> Deployed:
    """The model in `folder`; with `codes` False quantized matrices are widened once, to train on or to compare.

    InputError with every fault of the folder: missing or changed files, a manifest that is none, tensors that aren't
    those of the model.
    """
    manifest = _manifest(folder)
    model = load_model(folder / TOML)
    try:
        tensors = safetensors().load_file(folder / WEIGHTS)
    except Exception as error:  # noqa: BLE001 (the library has a kind of its own)
        raise InputError(Fault(str(folder / WEIGHTS), f"can't be read: {error}")) from None
    maps = {name: tensors[f"{MAP}{name}"] for name in manifest["maps"] if f"{MAP}{name}" in tensors}
    small = fewer(model, 1 + max(int(each.max()) for each in maps.values())) if maps else model
    module = build(small, routing=routing_of(model)) if maps else build(model)
    faults = list(_misfits(module, manifest, tensors, folder))
    if faults:
        raise InputError(*faults)
    state = {name: _decoded(name, told, tensors, manifest) for name, told in manifest["weights"].items()}
    module.load_state_dict(state, strict=False)
    for name, target in maps.items():
        redirect(module, name, target)
    if codes and manifest["form"] in INTEGER:
        _in_codes(module, manifest, tensors)
    facts = Facts(
        task=manifest["task"],
        kind=manifest["kind"],
        shape=tuple(manifest["shape"]),
        classes=tuple(manifest["classes"]),
        scale=manifest["scale"],
        data=manifest["data"],
        metrics=manifest["metrics"],
        history=manifest["history"],
    )
    return Deployed(folder, model, module.eval().requires_grad_(requires_grad=False), facts, manifest)


def _manifest(folder: Path) -> dict[str, Any]:
    """The checked manifest, whose files are there and unchanged."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(Fault(str(folder), "is no folder of an exported model"))
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError:
        raise InputError(Fault(str(folder), f"has no {MANIFEST}, so it is no exported model")) from None
    except ValueError as error:
        raise InputError(Fault(str(path), f"isn't valid JSON: {error}")) from None
    faults = list(_faults(found, path)) or list(_changed(found, folder))
    if faults:
        raise InputError(*faults)
    return dict(found)


def _faults(found: Any, path: Path) -> Iterator[Fault]:
    if not isinstance(found, dict):
        yield Fault(str(path), "expected a JSON object")
        return
    if found.get("schema_version") != SCHEMA_VERSION:
        yield Fault(f"{path}: schema_version", f"expected {SCHEMA_VERSION}", found.get("schema_version"))
        return
    kinds = {
        "classes": list, "data": str, "files": dict, "group": int, "history": dict, "maps": list, "metrics": dict,
        "scale": float, "shape": list, "weights": dict,
    }  # fmt: skip
    for key, kind in kinds.items():
        if not isinstance(found.get(key), kind):
            yield Fault(f"{path}: {key}", f"expected a {kind.__name__}", found.get(key))
    for key, known in (("form", FORMS), ("task", TASKS), ("kind", KINDS)):
        if found.get(key) not in known:
            yield Fault(f"{path}: {key}", f"expected one of {', '.join(known)}", found.get(key))
    for name in (TOML, WEIGHTS):
        if isinstance(found.get("files"), dict) and name not in found["files"]:
            yield Fault(f"{path}: files", f"{name} is missing")


def _changed(found: Mapping[str, Any], folder: Path) -> Iterator[Fault]:
    for name, told in found["files"].items():
        if not (folder / name).is_file():
            yield Fault(str(folder), f"{name} is missing")
        elif digest(folder / name) != told.get("sha256"):
            yield Fault(
                str(folder / name), "is not the file that was exported: its SHA-256 differs from the manifest's"
            )


def _misfits(
    module: nn.Module, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path
) -> Iterator[Fault]:
    """What differs between the tensors and the model."""
    told, where = manifest["weights"], str(folder / WEIGHTS)
    wanted = {name: tuple(value.shape) for name, value in module.named_parameters()}
    kept = module.state_dict()
    for name, shape in wanted.items():
        if name not in told:
            yield Fault(where, f"{name} is missing")
        elif tuple(told[name]["shape"]) != shape:
            yield Fault(f"{where}: {name}", f"the model wants the shape {list(shape)}", told[name]["shape"])
    for name, each in told.items():
        parts = _parts(name, each["form"], tensors)
        if not parts:
            yield Fault(where, f"the tensors of {name} are missing")
        if name not in kept:
            yield Fault(f"{where}: {name}", "the model has no such tensor")


def _parts(name: str, form: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if form == "as is":
        return {"": tensors[name]} if name in tensors else {}
    start = f"{name}:"
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}


def _decoded(name: str, told: Mapping[str, Any], tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> Tensor:
    parts = _parts(name, told["form"], tensors)
    return (
        parts[""]
        if told["form"] == "as is"
        else codecs.decode(parts, told["form"], tuple(told["shape"]), manifest["group"])
    )


def _in_codes(module: nn.Module, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Matrices and kernels that multiply with the stored codes."""
    bits, dynamic = layers.FORMS[manifest["form"]]
    for name, told in manifest["weights"].items():
        if told["form"] not in INTEGER:
            continue
        parts, shape = _parts(name, told["form"], tensors), torch.Size(told["shape"])
        values = parts["values"]
        inputs = shape[1:].numel() if len(shape) != 3 else shape[1]
        whole = unpack(values, inputs) if bits == 4 else values
        group = manifest["group"] if bits == 4 else 0
        layers.place(module, name, Codes(whole, parts["scale"], bits, group, shape), dynamic=dynamic)
