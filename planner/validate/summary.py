"""The summary of `plan validate`: errors of all rows, and of the rows that have something in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from planner.validate.ranking import ranking
from planner.validate.scaling import scaling

Json = dict[str, Any]
BANDS = ((8, "1-8"), (64, "9-64"), (512, "65-512"), (2048, "513-2048"))
"""Largest number of GPUs of each band of sizes, and its name."""
LARGEST = "over-2048"


def summary(results: list[Json]) -> Json:
    """Errors of all rows, by source, GPU, format, number of GPUs and kind of model, and of the sets that rows name."""
    predicted = [row for row in results if row["status"] == "ok"]
    bands = [*(name for _, name in BANDS), LARGEST]
    sets = defaultdict(list)
    for row in results:
        for name in row["sets"]:
            sets[name].append(row)
    return {
        "time": errors(results),
        "memory": memory(results),
        "by_source": _by(results, lambda row: row["source"].split(" ")[0]),
        "by_gpu": _by(results, lambda row: row["gpu"]),
        "by_precision": _by(predicted, lambda row: row["precision"]),
        "by_scale": dict(sorted(_by(predicted, band).items(), key=lambda item: bands.index(item[0]))),
        "by_kind": _by(predicted, lambda row: row["kind"]),
        "sets": {name: _of_set(rows) for name, rows in sorted(sets.items())},
        "ranking": ranking(results),
        "scaling": scaling(results),
        "unsupported": _refused(results),
    }


def band(row: Json) -> str:
    """The band of sizes that the number of GPUs of a row lies in."""
    return next((name for most, name in BANDS if row["gpus"] <= most), LARGEST)


def errors(rows: Iterable[Json]) -> Json:
    """Statistics of the step-time errors of some rows, and how many lie in their interval."""
    good = [row for row in rows if row["error"] is not None]
    inside = [row["interval_s"][0] <= row["measured_step_s"] <= row["interval_s"][1] for row in good]
    return {**statistics([row["error"] for row in good]), "coverage_90": float(np.mean(inside)) if good else None}


def memory(rows: Iterable[Json]) -> Json:
    """Statistics of the errors of peak memory."""
    return statistics([row["memory_error"] for row in rows])


def statistics(found: Iterable[float | None]) -> Json:
    """Median, mean and ninetieth percentile of the absolute values, and the signed median; None of nothing."""
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


def _by(rows: Iterable[Json], name_of: Callable[[Json], str]) -> Json:
    """The step-time errors of the rows of each name, sorted by name."""
    parts = defaultdict(list)
    for row in rows:
        parts[name_of(row)].append(row)
    return {name: errors(part) for name, part in sorted(parts.items())}


def _of_set(rows: list[Json]) -> Json:
    """Figures of a named set: all of them, those of its mixtures, and how many rows are refused."""
    mixtures = [row for row in rows if row["kind"] == "moe"]
    return {
        "rows": len(rows),
        "time": errors(rows),
        "mixtures": errors(mixtures),
        "memory": memory(rows),
        "unsupported": _refused(rows),
    }


def _refused(rows: Iterable[Json]) -> int:
    return sum(row["status"] == "unsupported" for row in rows)
