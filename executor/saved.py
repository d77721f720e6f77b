"""Checkpoints on disk: which are complete, which is the newest, which may go. Needs no torch.

`step-00000020.part` is being written; once every file and `manifest.json` (the files with their sizes) are on the disk
it is renamed to `step-00000020`, in one step, so a checkpoint is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.files import write

MANIFEST = "manifest.json"
PART = ".part"


@dataclass(frozen=True)
class Saved:
    """One complete checkpoint: after `step` optimizer steps; `manifest` is what else the run needs to go on."""

    path: Path
    step: int
    manifest: dict[str, Any]


def place(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step stands once it is complete."""
    return folder / f"step-{step:08d}"


def part(folder: Path, step: int) -> Path:
    """Where it is written."""
    return place(folder, step).with_suffix(PART)


def complete(folder: Path, step: int, manifest: dict[str, Any]) -> Saved:
    """Make the written checkpoint of `step` a complete one; OSError or InputError when the disk refuses."""
    writing, final = part(folder, step), place(folder, step)
    sizes = {file.name: file.stat().st_size for file in sorted(writing.iterdir())}
    content = {**manifest, "step": step, "files": sizes}
    write(writing / MANIFEST, json.dumps(content, indent=2) + "\n")
    for path in (writing / MANIFEST, writing):
        _flush(path)
    writing.rename(final)
    _flush(folder)
    return Saved(final, step, content)


def found(folder: Path) -> list[Saved]:
    """The complete checkpoints, newest first; one whose files are not all there in full is left out."""
    if not folder.is_dir():
        return []
    candidates = (_saved(path) for path in folder.iterdir() if path.name.startswith("step-") and path.suffix != PART)
    return sorted((saved for saved in candidates if saved), key=lambda saved: -saved.step)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` complete checkpoints."""
    for saved in found(folder)[keep:]:
        shutil.rmtree(saved.path, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what an interrupted run left half-written."""
    for path in folder.glob(f"step-*{PART}"):
        shutil.rmtree(path, ignore_errors=True)


def _saved(path: Path) -> Saved | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        whole = all((path / name).stat().st_size == size for name, size in manifest["files"].items())
        return Saved(path, int(manifest["step"]), manifest) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _flush(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
