"""The residual quantiles by regime; `planner.fit` makes the file from residuals of sources left out of the fit."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

Json = dict[str, Any]
FEWEST = 30  # runs; a regime with fewer takes the quantiles of all
QUANTILES = (0.05, 0.95)


def fit_intervals(result: Json) -> Json:
    """Factors and number of runs by regime, and of `all`, from a result of `plan validate`."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in result["rows"]:
        if row["error"] is not None:
            for name in ("all", row["regime"]):
                found[name].append(row["measured_step_s"] / row["predicted_step_s"])
    return {
        name: {"factors": [float(factor) for factor in np.quantile(ratios, QUANTILES)], "runs": len(ratios)}
        for name, ratios in sorted(found.items())
        if name == "all" or len(ratios) >= FEWEST
    }


def text(regimes: Json, day: str) -> str:
    """The TOML file."""
    lines = [
        "# Measured over predicted step time of published runs: their 5 % and 95 % quantiles by GPU generation and",
        "# kind of model, each run predicted by a fit that saw no run of its source.",
        f'data = "{regimes["all"]["runs"]} published runs of 2021 to 2026, A100 to MI355X and GB300"',
        f"date = {day}",
        "",
        "[regimes]",
    ]
    for name, regime in regimes.items():
        low, high = regime["factors"]
        lines.append(f"{name} = {{ factors = [{low:.3f}, {high:.3f}], runs = {regime['runs']} }}")
    return "\n".join(lines) + "\n"
