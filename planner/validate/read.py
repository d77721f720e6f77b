"""RUNS.yaml (or the CSV of a sweep on one node) -> rows; every fault of the file at once."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from planner.errors import Fault, InputError
from planner.validate import sweep

Row = dict[str, Any]
LARGEST = 64 * 2**20  # bytes
SECTIONS = ("model", "hardware", "parallel")
RESULTS = ("measured", "derived")  # what the prediction is compared with; may be missing
COUNTS = {
    "model": ("seq_len",),
    "hardware": ("num_gpus", "gpus_per_node"),
    "parallel": ("tp", "pp", "vpp", "cp", "ep", "etp", "fsdp", "mbs", "gbs", "grad_accum"),
}
MOST = 10**9  # no degree, batch or sequence is larger
GIB, GB = 2.0**30, 1e9
DECIMAL = re.compile(r"Zero Bubble")
"""Sources whose software divides bytes by powers of ten (sail-sg/zero-bubble: max_memory_allocated() // 1000000)."""


def read(path: Path) -> list[Row]:
    """The rows of a file of published runs (a list, or a mapping with the list under `runs`)."""
    where = str(path)
    if path.is_dir():
        raise InputError(Fault(where, "is a directory; expected a YAML file of published runs"))
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(Fault(where, "is larger than 64 MiB; expected a YAML file of published runs"))
        if path.suffix == ".csv":
            return sweep.rows(path.read_text(encoding="utf-8"), where)
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
    named = isinstance(row.get("id"), str)
    place = f"{where} ({row['id']})" if named else where
    return [
        *(() if named else (Fault(f"{where}: id", "expected a name", row.get("id")),)),
        *(
            Fault(f"{place}: {section}", "expected a mapping", row.get(section))
            for section in (*SECTIONS, *RESULTS)
            if not isinstance(row.get(section), dict) and not (section in RESULTS and row.get(section) is None)
        ),
        *(
            Fault(f"{place}: {section}.{key}", "expected a whole number from 0, or nothing", row[section][key])
            for section, keys in COUNTS.items()
            if isinstance(row.get(section), dict)
            for key in keys
            if not _is_count(row[section].get(key))
        ),
    ]


def _is_count(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value <= MOST)


def measured_step(row: Row) -> float | None:
    """The measured step time [s]: printed, else derived, else from printed rates; None when there is neither."""
    measured, derived = row.get("measured") or {}, row.get("derived") or {}
    stated = _positive(measured.get("step_time_s")) or _positive(derived.get("step_time_s"))
    return stated or _from_rate(row, measured)


def _from_rate(row: Row, measured: Row) -> float | None:
    """Step time [s] from tokens or samples per second, in all or per GPU."""
    samples, gpus = row["parallel"].get("gbs") or 0, row["hardware"].get("num_gpus") or 0
    tokens = samples * (row["model"].get("seq_len") or 0)
    for done, total, each in (
        (tokens, "tokens_per_s_total", "tokens_per_s_per_gpu"),
        (samples, "samples_per_s", "samples_per_s_per_gpu"),
    ):
        rate = _positive(measured.get(total)) or (_positive(measured.get(each)) or 0.0) * gpus
        if done and rate:
            return float(done / rate)
    return None


def measured_peak(row: Row) -> float | None:
    """The measured peak memory [B]."""
    found = _positive((row.get("measured") or {}).get("peak_mem_gib"))
    return found * (GB if DECIMAL.search(str(row.get("source"))) else GIB) if found else None


def _positive(value: object) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return float(value) if good and isinstance(value, int | float) else None
