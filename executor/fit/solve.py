"""Least squares on log time: every fit of this package is a formula, a few positive parameters and their start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from planner.errors import Fault, InputError

Floats = NDArray[np.float64]
NOISE = 0.1  # log; beyond it a residual counts linearly, so that one disturbed row does not lead
PRIOR = 1.5  # log; how far a parameter may stray before the rows have to insist


@dataclass(frozen=True)
class Parameter:
    """A positive number to fit: where it starts, its bounds, and `trust` in the start (log standard deviation)."""

    start: float
    low: float
    high: float
    trust: float = PRIOR


@dataclass(frozen=True)
class Fit:
    """`values` by name; `residual` is the mean absolute relative error over `rows` rows, `worst` the largest."""

    values: Mapping[str, float]
    residual: float
    worst: float
    rows: int

    def words(self, what: str) -> str:
        """The source of a fitted number."""
        errors = f"mean error {100 * self.residual:.1f} %, worst {100 * self.worst:.1f} %"
        return f"fitted: {self.rows} {what}, {errors}"


def fit(
    parameters: Mapping[str, Parameter],
    predict: Callable[[Mapping[str, float]], Sequence[float] | Floats],
    seconds: Sequence[float],
    weights: Sequence[float] | None = None,
) -> Fit:
    """The parameters under which `predict` (seconds of each row) comes closest to `seconds`.

    Robust (soft L1) in the log of the time, with a weak prior at each start. InputError when there are no rows.
    """
    if not seconds:
        raise InputError(Fault("measurements", f"no rows to fit {', '.join(parameters)} on"))
    names = list(parameters)
    target = np.log(np.asarray(seconds, dtype=np.float64))
    weight = np.ones(len(target)) if weights is None else np.sqrt(np.asarray(weights, dtype=np.float64))
    start = np.log([parameters[name].start for name in names])
    bounds = tuple(np.log([getattr(parameters[n], edge) for n in names]) for edge in ("low", "high"))
    trust = np.array([parameters[name].trust for name in names])

    def error(vector: Floats) -> Floats:
        values = dict(zip(names, np.exp(vector), strict=True))
        return np.log(np.asarray(predict(values), dtype=np.float64)) - target

    def residuals(vector: Floats) -> Floats:
        misfit = weight * error(vector) / NOISE
        robust = np.sign(misfit) * np.sqrt(2.0 * (np.sqrt(1.0 + np.square(misfit)) - 1.0))
        return np.concatenate([robust, (vector - start) / trust])

    inside = np.clip(start, bounds[0] + 1e-9, bounds[1] - 1e-9)
    found = least_squares(residuals, inside, bounds=bounds, method="trf").x
    size = np.abs(np.expm1(error(found)))
    values = dict(zip(names, (float(x) for x in np.exp(found)), strict=True))
    return Fit(values, float(size.mean()), float(size.max()), len(target))
