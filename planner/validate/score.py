"""`plan validate`: every row predicted or refused, and the summary of the errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from planner.estimate import estimate
from planner.interval import interval, regime
from planner.provenance import SCHEMA_VERSION, fingerprint, tool_version
from planner.validate.peak import predicted_peak
from planner.validate.read import Row, measured_peak, measured_step, read
from planner.validate.refusal import Refused
from planner.validate.translate import translate

Json = dict[str, Any]


def validate(path: Path, where: dict[str, str] | None = None) -> Json:
    """The JSON of `plan validate` for the rows of `path` whose fields contain the texts of `where`."""
    rows = [row for row in read(path) if _wanted(row, where or {})]
    results = [predict(row) for row in rows]
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "rows": results,
        "summary": summary(results),
        "provenance": [fingerprint("runs", str(path), None)],
    }


def predict(row: Row) -> Json:
    """One row of the result."""
    measured, peak = measured_step(row), measured_peak(row)
    result: Json = {
        "id": row["id"],
        "source": str(row.get("source") or "unknown"),
        "gpu": str(row["hardware"].get("gpu") or "unknown"),
        "regime": None,
        "status": "ok",
        "reason": None,
        "measured_step_s": measured,
        "predicted_step_s": None,
        "interval_s": None,
        "error": None,
        "measured_peak_bytes": peak,
        "predicted_peak_bytes": None,
        "memory_error": None,
    }
    try:
        plan = translate(row)
    except Refused as refused:
        return {**result, "status": "unsupported", "reason": str(refused)}
    step = float(estimate(plan.setting, plan.degrees).step.total)
    used = predicted_peak(plan, row)
    result |= {"predicted_step_s": step, "predicted_peak_bytes": used, "interval_s": list(interval(plan.setting, step))}
    result["regime"] = regime(plan.setting)
    if measured is not None:
        result["error"] = step / measured - 1.0
    if peak is not None:
        result["memory_error"] = used / peak - 1.0
    return result


def summary(results: list[Json]) -> Json:
    """Errors of all rows, and by source and GPU."""
    by_source, by_gpu = defaultdict(list), defaultdict(list)
    for row in results:
        by_source[row["source"].split(" ")[0]].append(row)
        by_gpu[row["gpu"]].append(row)
    return {
        "time": errors(results),
        "memory": _statistics([row["memory_error"] for row in results]),
        "by_source": {name: errors(rows) for name, rows in sorted(by_source.items())},
        "by_gpu": {name: errors(rows) for name, rows in sorted(by_gpu.items())},
        "unsupported": sum(row["status"] == "unsupported" for row in results),
    }


def errors(rows: Iterable[Json]) -> Json:
    """Statistics of the step-time errors of some rows, and how many lie in their interval."""
    good = [row for row in rows if row["error"] is not None]
    inside = [row["interval_s"][0] <= row["measured_step_s"] <= row["interval_s"][1] for row in good]
    return {**_statistics([row["error"] for row in good]), "coverage_90": float(np.mean(inside)) if good else None}


def _statistics(found: list[float | None]) -> Json:
    values = np.array([value for value in found if value is not None])
    if not len(values):
        return {"n": 0, "median_abs_error": None, "mean_abs_error": None, "p90_abs_error": None, "bias": None}
    size = np.abs(values)
    return {
        "n": len(values),
        "median_abs_error": float(np.median(size)),
        "mean_abs_error": float(np.mean(size)),
        "p90_abs_error": float(np.percentile(size, 90)),
        "bias": float(np.median(values)),
    }


def _wanted(row: Row, where: dict[str, str]) -> bool:
    return all(text.lower() in _field(row, key).lower() for key, text in where.items())


def _field(row: Row, key: str) -> str:
    """A field of the row by name, at the top or in one of its sections; the model's `name` is under `model`."""
    if key == "model":
        return str(row["model"].get("name"))
    for table in (row, row["hardware"], row["parallel"]):
        if key in table:
            return str(table[key])
    return ""
