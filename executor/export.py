"""A trained model as a folder that can be deployed: what it is, its weights, where it comes from.

| model.toml | the planner's model TOML |
| model.safetensors | whole tensors by canonical name, stored in a form of `executor.methods.codecs` |
| manifest.json | the form of every weight, task and inputs, data fingerprint, metrics, hashes of the files |
| model.pt2 | the torch.export program, where torch can trace the model |
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from executor.copies import whole
from executor.methods import codecs
from executor.methods.distill import PROJECTION
from executor.methods.targets import SPARED, compressible
from executor.trainer import Trainer
from planner.compression.quantize import GROUP
from planner.errors import Fault, InputError
from planner.files import write
from planner.provenance import tool_version

SCHEMA_VERSION = 1
TOML, WEIGHTS, MANIFEST, PROGRAM = "model.toml", "model.safetensors", "manifest.json", "model.pt2"
FORMS = (*codecs.FORMS, "int8-dynamic")
TASKS = ("language-model", "classification")
KINDS = ("bytes", "images")
MAP = "experts_map."  # before the name of a mixture: which of the merged experts each choice of its router means


@dataclass(frozen=True)
class Facts:
    """What a deployed model must know: `task`, the `kind` of its inputs (bytes of text or images) and their `shape`.

    `shape`: [tokens] at most, or [channels, height, width]; `classes` names what a classifier tells apart; images of
    whole numbers are divided by `scale`. `data` is a fingerprint of the training data, `metrics` what was measured on
    held-out data, `history` what else is known of the training.
    """

    task: str
    kind: str
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    scale: float = 1.0
    data: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)


def gathered(trainer: Trainer) -> dict[str, Tensor]:
    """Whole parameters and buffers by canonical name, on rank 0 of any layout; every rank must call it."""
    found = trainer.parameters()
    buffers = {
        name: value
        for module in trainer.modules
        for name, value in module.named_buffers()
        if name in module.state_dict()
    }
    every = found | whole(buffers, trainer.meshes.group("pp"))
    return {name: value for name, value in every.items() if not name.startswith(PROJECTION)}


def export(
    folder: Path,
    text: str,
    state: Mapping[str, Tensor],
    facts: Facts,
    *,
    form: str = "fp32",
    group: int = GROUP,
    maps: Mapping[str, Tensor] | None = None,
    spared: frozenset[str] = SPARED,
    program: tuple[nn.Module, Tensor] | None = None,
) -> dict[str, Any]:
    """Write the folder and return its manifest; one process calls it, with whole tensors.

    `text` is the model TOML (`executor.model_file`), `maps` tables of merged experts (`executor.methods.experts`);
    weights that `spared` doesn't name are stored in `form` (int4 with a scale for each `group` of inputs), all others
    in fp32. `program`: a module and an example of its inputs, to be traced by torch.export. InputError when the form
    doesn't fit the weights or the disk refuses.
    """
    save_file = safetensors().save_file
    if form not in FORMS:
        raise InputError(Fault("form", f"expected one of {', '.join(FORMS)}", form))
    tensors: dict[str, Tensor] = {}
    told: dict[str, dict[str, Any]] = {}
    for name, value in _once(state).items():
        stored = _form(name, value, form, spared)
        for part, each in ({"": value.detach()} if stored == "as is" else codecs.encode(value, stored, group)).items():
            tensors[f"{name}:{part}" if part else name] = each.contiguous()
        told[name] = {"form": stored, "shape": list(value.shape)}
    for name, target in (maps or {}).items():
        tensors[f"{MAP}{name}"] = target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    except OSError as error:
        raise InputError(Fault(str(folder), f"can't be written: {error.strerror or error}")) from None
    write(folder / TOML, text)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        **asdict(facts),
        "form": form,
        "group": group,
        "weights": told,
        "maps": sorted(maps or {}),
        "parameters": sum(value.numel() for value in _once(state).values()),
        "stored_bytes": codecs.stored_bytes(tensors),
        "program": _traced(folder, *program) if program else "not asked for",
    }
    kept = [name for name in (TOML, WEIGHTS, PROGRAM) if (folder / name).is_file()]
    manifest["files"] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest(folder / name)} for name in kept
    }
    told_text = json.dumps(manifest, indent=2) + "\n"
    write(folder / MANIFEST, told_text)
    return dict(json.loads(told_text))


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safetensors() -> Any:
    """The library, or a sentence that names it."""
    try:
        import safetensors.torch as found  # noqa: PLC0415 (optional)
    except ImportError:
        text = "exported models need the package safetensors: pip install '.[training]'"
        raise InputError(Fault("safetensors", text)) from None
    return found


def _once(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without a second name for the same one: a tied output matrix is the embedding."""
    names = {(value.data_ptr(), value.shape): name for name, value in reversed(list(state.items())) if value.numel()}
    return {name: value for name, value in state.items() if names.get((value.data_ptr(), value.shape), name) == name}


def _form(name: str, value: Tensor, form: str, spared: frozenset[str]) -> str:
    """How one tensor is stored: integers as they are, what isn't compressed in fp32."""
    if not value.is_floating_point():
        return "as is"
    wanted = form.removesuffix("-dynamic")
    return wanted if compressible(name, value.shape, spared) and codecs.fits(wanted, tuple(value.shape)) else "fp32"


def _traced(folder: Path, module: nn.Module, example: Tensor) -> str:
    """Trace and save the program; "written", or why not."""
    (folder / PROGRAM).unlink(missing_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own internals
            shapes = ({0: torch.export.Dim("batch")},)
            traced = torch.export.export(module.eval(), (example,), dynamic_shapes=shapes)
            torch.export.save(traced, folder / PROGRAM)
    except Exception as error:  # noqa: BLE001 (torch raises many kinds; the model is exported all the same)
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"not written: {first[:200]}"
    return "written"
