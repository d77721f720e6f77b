"""A 90 % interval around a step time, from the residuals of published runs of the same regime.

The factors are the 5 % and 95 % quantiles of measured over predicted (`planner.validate.intervals` makes the file), of
runs whose source the fit had not seen: the uncertainty of its parameters is in them. Where the model is biased for a
regime the interval lies to one side of the estimate: it is widened to contain it. For what no run shows (a family of
software stacks, a GPU generation, more GPUs) the factors are raised to a power that runs left out with all of their
kind have measured.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from planner import stack
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
    low, high = bounds(_table()["regimes"], regime(setting))
    power = widening(setting)
    return low**power * step_time, high**power * step_time


def bounds(regimes: Mapping[str, Any], name: str) -> tuple[float, float]:
    """Lower and upper factor of a regime, those of all where it has too few runs; they hold the prediction itself."""
    low, high = regimes.get(name, regimes["all"])["factors"]
    return min(low, 1.0), max(high, 1.0)


def novelties(setting: Setting) -> list[str]:
    """What of a setting no fitted run shows: `family` of stacks, `generation` of GPUs, `size` of the cluster."""
    seen = _table()["seen"]
    new = {
        "family": stack.family(setting.stack.name) not in seen["families"],
        "generation": setting.gpu.generation not in seen["generations"],
        "size": setting.cluster.gpus > seen["gpus"],
    }
    return [name for name, true in new.items() if true]


def widening(setting: Setting) -> float:
    """The power of the factors: 1 for what is known, the largest measured one of what is not."""
    return max([1.0, *(float(_table()["widening"][name]) for name in novelties(setting))])


@cache
def _table() -> dict[str, Any]:
    text = resources.files("planner").joinpath("data", "intervals.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
