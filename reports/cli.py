"""Writes the pages; the command line calls these two functions."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from reports.page import capacity_page, plan_page
from reports.words import Json


def write_plan(plan: Json, search: Json | None, path: Path) -> None:
    """Write the page of a plan to `path`, whole or not at all."""
    _write(plan_page(plan, search), path)


def write_capacity(capacity: Json, path: Path) -> None:
    """Write the capacity page to `path`, whole or not at all."""
    _write(capacity_page(capacity), path)


def _write(text: str, path: Path) -> None:
    """Write beside the target, then rename: a reader never sees half a page, a failure leaves the old one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
