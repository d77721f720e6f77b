"""How well growth is predicted: slopes of throughput over the number of GPUs, both as logarithms.

Tokens per second are compared, not step times: a series may hold the work per GPU fixed (weak scaling) or the whole
batch (strong), and in both a slope of 1 is perfect scaling and what is missing to 1 is what more GPUs lose.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

Json = dict[str, Any]
FEWEST = 3  # sizes of a series
TOLERANCE = 0.03
"""Of a slope: over a range of 8 in GPUs it is 6 % of throughput between both ends."""


def scaling(results: list[Json]) -> Json:
    """Predicted minus measured slope of each series of one model and sequence length with at least FEWEST sizes.

    Where a series has several runs of a size (layouts, batches), the fastest measured one stands for it.
    """
    series = defaultdict(list)
    for row in results:
        if row["error"] is not None and row["scaling_group"]:
            series[row["scaling_group"], row["model"], row["seq_len"], row["precision"]].append(row)
    found = [_slopes(name[0], rows) for name, rows in sorted(series.items())]
    groups = [group for group in found if group["sizes"] >= FEWEST]
    size = np.abs([group["error"] for group in groups])
    return {
        "n": len(groups),
        "median_abs_error": float(np.median(size)) if groups else None,
        "mean_abs_error": float(np.mean(size)) if groups else None,
        "within_tolerance": float(np.mean(size <= TOLERANCE)) if groups else None,
        "tolerance": TOLERANCE,
        "groups": groups,
    }


def _slopes(name: str, rows: list[Json]) -> Json:
    """Both slopes of one series, and the sizes it spans; 0 where there is one size."""
    fastest: dict[int, Json] = {}
    for row in sorted(rows, key=lambda row: row["measured_step_s"] / row["tokens_per_step"]):
        fastest.setdefault(row["gpus"], row)
    gpus = sorted(fastest)
    slopes = {
        key: _slope(gpus, [fastest[n]["tokens_per_step"] / fastest[n][f"{key}_step_s"] for n in gpus])
        for key in ("measured", "predicted")
    }
    return {
        "name": name,
        "model": rows[0]["model"],
        "source": rows[0]["source"].split(" ")[0],
        "sizes": len(gpus),
        "gpus": [gpus[0], gpus[-1]],
        "measured_slope": slopes["measured"],
        "predicted_slope": slopes["predicted"],
        "error": slopes["predicted"] - slopes["measured"],
    }


def _slope(gpus: list[int], rates: list[float]) -> float:
    """Least-squares slope of log rate over log GPUs."""
    x, y = np.log(gpus), np.log(rates)
    x = x - np.mean(x)
    return float(x @ (y - np.mean(y)) / (x @ x)) if len(gpus) > 1 else 0.0
