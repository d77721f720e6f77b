"""`plan validate`: every row predicted or refused, with what it is compared by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from planner.interval import interval
from planner.provenance import SCHEMA_VERSION, fingerprint, tool_version
from planner.validate import facts
from planner.validate.peak import predicted_peak
from planner.validate.read import Row, measured_peak, measured_step, read
from planner.validate.refusal import Refused
from planner.validate.stages import step_as_cut
from planner.validate.summary import summary
from planner.validate.translate import translate

Json = dict[str, Any]
PREDICTED = (
    "regime",
    "kind",
    "precision",
    "stack",
    "layout",
    "ranking_group",
    "global_batch",
    "tokens_per_step",
    "time",
)
"""What only a predicted row has."""


def selected(path: Path, where: dict[str, str]) -> list[Row]:
    """The rows of `path` whose fields contain the texts of `where`; InputError with every fault of the file."""
    return [row for row in read(path) if all(text.lower() in _field(row, key).lower() for key, text in where.items())]


def validate(
    path: Path, rows: list[Row] | None = None, progress: Callable[[str, int, int], None] | None = None
) -> Json:
    """The JSON of `plan validate` for `rows` of `path`, by default all.

    `progress` is told what is done, how many rows are, and of how many.
    """
    rows = selected(path, {}) if rows is None else rows
    results = []
    for done, row in enumerate(rows):
        if progress:
            progress("rows predicted", done, len(rows))
        results.append(predict(row))
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
        **facts.stated(row),
        **dict.fromkeys(PREDICTED),
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
    step = step_as_cut(plan.setting, plan.degrees)
    seconds = float(step.total)
    result |= facts.planned(row, plan) | {"time": facts.parts(step)}
    result |= {"predicted_step_s": seconds, "predicted_peak_bytes": predicted_peak(plan, row)}
    result["interval_s"] = list(interval(plan.setting, seconds))
    if measured is not None:
        result["error"] = seconds / measured - 1.0
    if peak is not None:
        result["memory_error"] = result["predicted_peak_bytes"] / peak - 1.0
    return result


def _field(row: Row, key: str) -> str:
    """A field of the row by name, at the top or in one of its sections; the model's `name` is under `model`."""
    if key == "model":
        return str(row["model"].get("name"))
    for table in (row, row["hardware"], row["parallel"]):
        if key in table:
            return str(table[key])
    return ""
