"""The residual quantiles by regime; `planner.fit` makes the file from residuals of sources left out of the fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from planner.interval import bounds

Json = dict[str, Any]
FEWEST, SOURCES = 30, 2
"""Runs and sources; a regime with fewer takes the quantiles of all (one source doesn't show how sources differ)."""
QUANTILES = (0.05, 0.95)


class Residual(NamedTuple):
    """Measured over predicted step time of a run that the prediction has not seen."""

    source: str
    regime: str
    ratio: float


def fit_intervals(residuals: Iterable[Residual]) -> Json:
    """Factors and number of runs by regime, and of `all`."""
    found: dict[str, list[Residual]] = defaultdict(list)
    for residual in residuals:
        for name in ("all", residual.regime):
            found[name].append(residual)
    return {
        name: {"factors": _quantiles([each.ratio for each in part]), "runs": len(part)}
        for name, part in sorted(found.items())
        if name == "all" or (len(part) >= FEWEST and len({each.source for each in part}) >= SOURCES)
    }


def covered(residuals: Sequence[Residual]) -> list[bool]:
    """Whether each run lies in an interval made from other sources alone; none does where there is no other source.

    Neither the prediction nor the interval of a run has seen its source.
    """
    regimes = {
        source: fit_intervals([each for each in residuals if each.source != source])
        for source in {each.source for each in residuals}
    }
    inside = []
    for each in residuals:
        low, high = bounds(regimes[each.source], each.regime) if regimes[each.source] else (np.inf, -np.inf)
        inside.append(low <= each.ratio <= high)
    return inside


def widening(novel: Mapping[str, float], usual: Mapping[str, float]) -> float:
    """By what power factors grow for what no run has shown: spread of log errors without it over the usual, at least 1.

    `novel` and `usual` hold the log errors of runs by name, the first left out with all that is like them, the second
    with their source; spread is the ninetieth percentile of the absolute errors of the runs in `novel`.
    """
    spread, known = (np.percentile(np.abs([errors[name] for name in novel]), 90) for errors in (novel, usual))
    return max(float(spread / known), 1.0)


def text(regimes: Json, wider: Mapping[str, float], seen: Mapping[str, Any], day: str) -> str:
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
    lines += [
        "",
        "# Power of the factors for what no run shows: spread of log errors of runs left out with their whole family",
        "# of stacks, GPU generation or size, over that of the same runs left out with their source.",
        "[widening]",
        *(f"{name} = {power:.2f}" for name, power in wider.items()),
        "",
        "[seen]",
        *(f"{name} = {value}".replace("'", '"') for name, value in seen.items()),
    ]
    return "\n".join(lines) + "\n"


def _quantiles(ratios: list[float]) -> list[float]:
    return [float(factor) for factor in np.quantile(ratios, QUANTILES)]
