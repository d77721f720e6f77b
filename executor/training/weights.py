"""The weights that a training leaves in `out/final`, and a training that starts from those of an earlier one.

`final` holds one checkpoint of `model.NAME` tensors alone (averaged where the recipe averages), whole by their place,
so any layout reads them. What the new model has and the old one hasn't, or in another shape, keeps its first values.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader

from executor.checkpoint import Checkpoints
from executor.saved import Saved, found, sweep
from executor.trainer import Trainer
from planner.errors import Fault, InputError

FINAL, BEST = "final", "best"


def save_final(trainer: Trainer, out: Path, step: int, manifest: dict[str, Any], timeout: float) -> None:
    """Write the weights as they are now; every rank must call it."""
    checkpoints = Checkpoints(out / FINAL, 1, timeout)
    checkpoints.save(step, model_of(trainer), manifest)
    checkpoints.finish()


def tidy(out: Path, resume: Saved | None) -> None:
    """Remove what an earlier training left in `final` and `best`, but for the best one of the training that goes on."""
    shutil.rmtree(out / FINAL, ignore_errors=True)
    best = ((resume.manifest["training"]["patience"] if resume else None) or {}).get("step", 0)
    for saved in found(out / BEST):
        if saved.step != best:
            shutil.rmtree(saved.path, ignore_errors=True)
    sweep(out / BEST)


def model_of(trainer: Trainer) -> dict[str, Any]:
    """`model.NAME`: parameters and buffers."""
    return {name: value for name, value in trainer.state().items() if name.startswith("model.")}


def load_final(trainer: Trainer, saved: Saved) -> list[str]:
    """Read the weights that fit; the names of those that keep their first values. Every rank must call it."""
    state = model_of(trainer)
    stored = FileSystemReader(saved.path).read_metadata().state_dict_metadata
    fitting = {name: value for name, value in state.items() if _size(stored.get(name)) == tuple(value.shape)}
    everyone: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, sorted(set(state) - set(fitting)))
    fits = [bool(fitting)] * dist.get_world_size()
    dist.all_gather_object(fits, bool(fitting))
    if not any(fits):
        raise InputError(Fault(str(saved.path), "has no weights that this model has too"))
    Checkpoints(saved.path.parent, 1, 60.0).load(saved, fitting)
    return sorted({name.removeprefix("model.") for names in everyone for name in names})


def _size(entry: Any) -> tuple[int, ...] | None:
    return tuple(entry.size) if hasattr(entry, "size") else None
