"""The residual quantiles by regime: `python -m planner.validate.intervals RUNS.yaml > planner/data/intervals.toml`."""

from __future__ import annotations

import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from planner.validate.score import validate

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
        "# kind of model. No parameter of the model was fitted on step times, but the quantiles are those of the runs",
        "# that they are shown with: on other runs expect a little less than nine in ten inside.",
        f'data = "{regimes["all"]["runs"]} published runs of 2021 to 2026, A100 to MI355X and GB300"',
        f"date = {day}",
        "",
        "[regimes]",
    ]
    for name, regime in regimes.items():
        low, high = regime["factors"]
        lines.append(f"{name} = {{ factors = [{low:.3f}, {high:.3f}], runs = {regime['runs']} }}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text(fit_intervals(validate(Path(sys.argv[1]))), f"{datetime.now(UTC):%Y-%m-%d}"))
