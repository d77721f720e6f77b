"""Before and after: exported models side by side in accuracy, size and latency, each measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from executor.data import Split
from executor.export import WEIGHTS
from executor.exported import Deployed, load
from executor.infer import latency
from executor.judge import batches, scores
from executor.measure.clock import time_call
from executor.measure.quiet import QUIET, others
from hwprofiles.quantity import format as human
from planner.commands.output import Sheet
from planner.provenance import SCHEMA_VERSION, tool_version

REPEATS = 9  # latencies, of which the median counts
BUDGET = 0.3  # s of CPU time to measure in
PERCENT = 100.0
Json = dict[str, Any]


def compared(folders: Mapping[str, Path], split: Split, most: int = 0, repeats: int = REPEATS) -> Json:
    """One row for each exported model by its name here, the first the one that the others are compared with.

    `split` is held-out data, of which `most` samples (0: all) are judged; latency is that of one batch of it.
    """
    busy = others()
    rows = [_row(name, load(folder), split, most, repeats) for name, folder in folders.items()]
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "metric": "perplexity" if "perplexity" in rows[0]["scores"] else "accuracy",
        "rows": rows,
        "measured": {
            "clock": "wall",
            "threads": torch.get_num_threads(),
            "cores_of_others": busy,
            "quiet": busy <= QUIET,
        },
    }


def sheet(table: Json) -> Sheet:
    """The table for people."""
    first, metric = table["rows"][0], table["metric"]
    rows = [
        (
            row["name"],
            row["form"],
            _metric(row, metric),
            f"{_metric_change(row, first, metric)}",
            f"{row['parameters']:,}",
            human(row["stored_bytes"], "B"),
            f"{first['stored_bytes'] / row['stored_bytes']:.2f} x",
            human(row["latency"]["seconds"], "s"),
            human(row["latency"]["cpu_seconds"], "s"),
            f"{first['latency']['cpu_seconds'] / row['latency']['cpu_seconds']:.2f} x",
        )
        for row in table["rows"]
    ]
    heads = ("model", "weights", metric, "change", "values", "stored", "smaller", "a batch", "CPU time", "faster")
    return Sheet("Before and after", heads, rows, notes=(note(table),))


def note(table: Json) -> str:
    """How the latencies were taken, and whether they can be believed."""
    told, first = table["measured"], table["rows"][0]["latency"]
    how = (
        f"Latency: median of {first['repeats']} batches of {first['samples']}, wall clock, {told['threads']} thread(s)"
    )
    quiet = "the machine was quiet" if told["quiet"] else "NOT quiet, so read them with care"
    cpu = "CPU time of one thread, the least of several, on which `faster` rests"
    return f"{how}; {cpu}. Other programs used {told['cores_of_others']:.1f} cores at the start: {quiet}."


def _row(name: str, deployed: Deployed, split: Split, most: int, repeats: int) -> Json:
    inputs, _, extra = next(iter(batches(deployed, split, most)))
    with torch.no_grad():
        timed = latency(lambda: deployed.module(inputs, **extra), len(inputs), repeats)
        busy = time_call(lambda: deployed.module(inputs, **extra), budget=BUDGET)
    return {
        "name": name,
        "model": deployed.model.name,
        "form": deployed.manifest["form"],
        "parameters": deployed.manifest["parameters"],
        "stored_bytes": deployed.manifest["stored_bytes"],
        "disk_bytes": (deployed.folder / WEIGHTS).stat().st_size,
        "scores": scores(deployed, split, most),
        "latency": {**asdict(timed), "cpu_seconds": busy.seconds},
    }


def _metric(row: Json, metric: str) -> str:
    value = row["scores"][metric]
    return f"{PERCENT * value:.2f} %" if metric == "accuracy" else f"{value:.3f}"


def _metric_change(row: Json, first: Json, metric: str) -> str:
    change = row["scores"][metric] - first["scores"][metric]
    return f"{PERCENT * change:+.2f} points" if metric == "accuracy" else f"{change:+.3f}"
