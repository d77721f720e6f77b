"""Robust Gauss-Newton on the problem: the Jacobian perturbs one mechanism of all stacks at once (they share no run)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from planner import stack
from planner.fit.problem import PARAMETERS, Layout, Run, predict

Floats = NDArray[np.float64]
STEP = -0.02  # of a fitted coordinate in the finite differences; downwards, as a clock starts at its upper bound
NOISE = 0.05  # scatter of repeated runs of one configuration (log), the scale beyond which a residual is an outlier


def layout_of(runs: Sequence[Run]) -> Layout:
    """The stacks and generations that the runs show."""
    stacks = sorted({run.plan.setting.stack.name for run in runs})
    return Layout(tuple(stacks), tuple(sorted({run.clock for run in runs})))


def base_values() -> dict[str, dict[str, float]]:
    """The current value of each mechanism of each stack."""
    return {name: {p.name: getattr(stack.load(name), p.name) for p in PARAMETERS} for name in stack.names()}


def _logs(runs: Sequence[Run], layout: Layout, vector: Floats) -> list[float]:
    base = base_values()
    return [predict(run, layout.of(run, vector), base[run.plan.setting.stack.name]) for run in runs]


def solve(runs: Sequence[Run], layout: Layout, start: Floats, prior: Floats, rounds: int = 12) -> Floats:
    """The vector of least robust squares of residuals and priors."""
    target = np.array([run.target for run in runs])
    weight = np.array([run.weight for run in runs])
    whitening, mechanism = layout.whitening(), layout.mechanisms()
    owner = np.array([layout.places(run) for run in runs])

    def residuals(vector: Floats) -> Floats:
        misfit = weight * (np.array(_logs(runs, layout, vector)) - target) / NOISE
        return np.concatenate([_robust(misfit), whitening @ (vector - prior)])

    def jacobian(vector: Floats) -> Floats:
        base = residuals(vector)[: len(runs)]
        matrix = np.zeros((len(runs), layout.size))
        for kind in range(mechanism.max() + 1):
            moved = vector + STEP * (mechanism == kind)
            slope = (residuals(moved)[: len(runs)] - base) / STEP
            matrix[np.arange(len(runs)), owner[:, kind]] = slope
        return np.vstack([matrix, whitening])

    return np.asarray(least_squares(residuals, start, jac=jacobian, method="trf", max_nfev=rounds).x)


def _robust(misfit: Floats) -> Floats:
    """Signed root of twice the soft-L1 loss: linear beyond a few times the noise, so that outliers pull little."""
    scale = 3.0
    return np.sign(misfit) * scale * np.sqrt(2.0 * (np.sqrt(1.0 + np.square(misfit / scale)) - 1.0))


def _left_out(source: str, runs: Sequence[Run], layout: Layout, prior: Floats) -> dict[str, float]:
    kept = [run for run in runs if run.source != source]
    vector = solve(kept, layout, prior, prior)
    return errors([run for run in runs if run.source == source], layout, vector)


def errors(out: Sequence[Run], layout: Layout, vector: Floats) -> dict[str, float]:
    """Log of predicted over measured of each run."""
    return dict(
        zip((run.name for run in out), np.array(_logs(out, layout, vector)) - [r.target for r in out], strict=True)
    )


def cross_validate(runs: Sequence[Run], layout: Layout, prior: Floats) -> dict[str, float]:
    """Log of predicted over measured of each run, by a fit from the priors that saw no run of its source."""
    work = partial(_left_out, runs=runs, layout=layout, prior=prior)
    found: dict[str, float] = {}
    with ProcessPoolExecutor(2) as pool:
        for part in pool.map(work, sorted({run.source for run in runs})):
            found |= part
    return found
