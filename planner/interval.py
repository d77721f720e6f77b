"""A 90 % interval around a step time, from the residuals of published runs of the same regime.

The factors are the 5 % and 95 % quantiles of measured over predicted (`planner.validate.intervals` makes the file).
Where the model is biased for a regime the interval lies to one side of the estimate: it is widened to contain it.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from planner.setting import Setting

SMALL = 1.5e9  # parameters of a dense model


def kind(setting: Setting) -> str:
    """What sort of model it is: `moe` (mixture of experts), `dense`, or `small` (dense, the host sets the pace)."""
    return "moe" if setting.model.experts else "small" if setting.model.total_parameters() < SMALL else "dense"


def regime(setting: Setting) -> str:
    """Which residuals apply: those of the GPU generation and the kind of model."""
    return f"{setting.gpu.generation}-{kind(setting)}"


def interval(setting: Setting, step_time: float) -> tuple[float, float]:
    """Lower and upper bound [s] around `step_time`; those of all runs for a regime with too few."""
    factors = _table()
    low, high = (factors[regime(setting)] if regime(setting) in factors else factors["all"])["factors"]
    return min(low, 1.0) * step_time, max(high, 1.0) * step_time


@cache
def _table() -> dict[str, Any]:
    text = resources.files("planner").joinpath("data", "intervals.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["regimes"]
    return table
