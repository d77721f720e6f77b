"""RUNS.yaml -> rows; every fault of the file at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from planner.errors import Fault, InputError

Row = dict[str, Any]
LARGEST = 64 * 2**20  # bytes
SECTIONS = ("model", "hardware", "parallel", "measured")
GIB = 2.0**30


def read(path: Path) -> list[Row]:
    """The rows of a file of published runs (a list, or a mapping with the list under `runs`)."""
    where = str(path)
    if path.is_dir():
        raise InputError(Fault(where, "is a directory; expected a YAML file of published runs"))
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(Fault(where, "is larger than 64 MiB; expected a YAML file of published runs"))
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506  a safe loader, in C where built
    except FileNotFoundError:
        raise InputError(Fault(where, "does not exist; name a YAML file of published runs")) from None
    except UnicodeDecodeError as error:
        raise InputError(Fault(where, f"is not UTF-8 text (byte {error.start})")) from None
    except yaml.YAMLError as error:
        raise InputError(Fault(where, f"is not valid YAML: {' '.join(str(error).split())}")) from None
    rows = data.get("runs") if isinstance(data, dict) else data
    if not isinstance(rows, list) or not rows:
        raise InputError(Fault(where, "holds no list of runs"))
    faults = [fault for number, row in enumerate(rows) for fault in _faults(row, f"{where}: row {number + 1}")]
    if faults:
        raise InputError(*faults)
    return rows


def _faults(row: object, where: str) -> list[Fault]:
    if not isinstance(row, dict):
        return [Fault(where, "expected a mapping", row)]
    found = [] if isinstance(row.get("id"), str) else [Fault(f"{where}: id", "expected a name", row.get("id"))]
    name = row.get("id", where)
    return found + [
        Fault(f"{name}: {section}", "expected a mapping", row.get(section))
        for section in SECTIONS
        if not isinstance(row.get(section), dict)
    ]


def measured_step(row: Row) -> float | None:
    """The measured step time [s]: printed, else derived from what is printed; None when neither is there."""
    derived = row.get("derived") or {}
    return _positive(row["measured"].get("step_time_s")) or _positive(derived.get("step_time_s"))


def measured_peak(row: Row) -> float | None:
    """The measured peak memory [B]."""
    found = _positive(row["measured"].get("peak_mem_gib"))
    return found * GIB if found else None


def _positive(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return float(value) if good and isinstance(value, int | float) else None
