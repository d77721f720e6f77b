"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from planner.errors import Fault, InputError


def write(path: Path, text: str) -> None:
    """Write beside the place, then rename; InputError when the place can't be written. Nothing is left of a failure."""
    try:
        _write_beside(path, text)
    except OSError as error:
        raise InputError(Fault(str(path), f"can't be written: {error.strerror}; nothing was left there")) from None


def _write_beside(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
