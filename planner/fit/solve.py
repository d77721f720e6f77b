"""Robust Gauss-Newton on the problem: a run and its slopes along each of its mechanisms are priced as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from scipy.optimize import least_squares

from planner import stack
from planner.fit.problem import PARAMETERS, Floats, Layout, Run, predict

STEP = -0.02  # of a fitted coordinate in the finite differences; downwards, as a clock starts at its upper bound
EDGE = 1e-6  # a start must lie inside its bounds
FOLD_ROUNDS = 6
SCALE = 3.0  # of the noise: where a residual begins to pull less
NOISE = 0.05  # scatter of repeated runs of one configuration (log), the scale beyond which a residual is an outlier


def layout_of(runs: Sequence[Run]) -> Layout:
    """The stacks and generations that the runs show."""
    stacks = sorted({run.plan.setting.stack.name for run in runs})
    return Layout(tuple(stacks), tuple(sorted({run.clock for run in runs})))


def base_values() -> dict[str, dict[str, float]]:
    """The current value of each mechanism of each stack."""
    return {name: {p.name: getattr(stack.load(name), p.name) for p in PARAMETERS} for name in stack.names()}


def _priced(runs: Sequence[Run], layout: Layout, vector: Floats) -> tuple[Floats, Floats]:
    """Log of each run's predicted step, and its slopes along each mechanism [runs, mechanisms]."""
    base = base_values()
    logs = np.array([predict(run, layout.moved(run, vector, STEP), base[run.plan.setting.stack.name]) for run in runs])
    return logs[:, 0], (logs[:, 1:] - logs[:, :1]) / STEP


def solve(runs: Sequence[Run], layout: Layout, start: Floats, prior: Floats, rounds: int = 12) -> Floats:
    """The vector of least robust squares of residuals and priors."""
    return fit(runs, layout, start, prior, rounds)[0]


def fit(runs: Sequence[Run], layout: Layout, start: Floats, prior: Floats, rounds: int = 12) -> tuple[Floats, Floats]:
    """The vector of `solve`, and its standard errors in fitted coordinates (priors included)."""
    target = np.array([run.target for run in runs])
    weight = np.array([run.weight for run in runs])
    whitening = np.linalg.inv(np.linalg.cholesky(layout.covariance()))
    owner = np.array([layout.places(run) for run in runs])
    low, high = layout.bounds()
    latest: dict[bytes, tuple[Floats, Floats]] = {}

    def misfit(vector: Floats) -> tuple[Floats, Floats]:
        """Weighted residuals and their slopes, of the latest vector kept: the solver asks for both."""
        key = vector.tobytes()
        if key not in latest:
            latest.clear()
            logs, slopes = _priced(runs, layout, vector)
            latest[key] = (weight * (logs - target) / NOISE, weight[:, None] * slopes / NOISE)
        return latest[key]

    def residuals(vector: Floats) -> Floats:
        return np.concatenate([_robust(misfit(vector)[0]), whitening @ (vector - prior)])

    def jacobian(vector: Floats) -> Floats:
        found, slopes = misfit(vector)
        matrix = np.zeros((len(runs), layout.size))
        np.put_along_axis(matrix, owner, _robust_slope(found)[:, None] * slopes, axis=1)
        return np.vstack([matrix, whitening])

    inside = np.clip(start, low + EDGE, high - EDGE)
    found = least_squares(residuals, inside, jac=jacobian, bounds=(low, high), method="trf", max_nfev=rounds, ftol=1e-3)
    spread = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
    return np.asarray(found.x), spread


def _robust(misfit: Floats) -> Floats:
    """Signed root of twice the soft-L1 loss: linear beyond a few times the noise, so that outliers pull little."""
    return np.sign(misfit) * SCALE * np.sqrt(2.0 * (np.sqrt(1.0 + np.square(misfit / SCALE)) - 1.0))


def _robust_slope(misfit: Floats) -> Floats:
    """The derivative of `_robust`, 1 at 0."""
    root = np.sqrt(1.0 + np.square(misfit / SCALE))
    return np.sqrt(0.5 * (root + 1.0)) / root


def _left_out(
    part: str, runs: Sequence[Run], labels: Sequence[str], layout: Layout, prior: Floats, start: Floats
) -> dict[str, float]:
    """Errors of the runs labelled `part`, by a fit of all others; the prior where there are none."""
    kept = [run for run, label in zip(runs, labels, strict=True) if label != part]
    vector = solve(kept, layout, start, prior, FOLD_ROUNDS) if kept else prior
    return errors([run for run, label in zip(runs, labels, strict=True) if label == part], layout, vector)


def errors(out: Sequence[Run], layout: Layout, vector: Floats) -> dict[str, float]:
    """Log of predicted over measured of each run."""
    found = _priced(out, layout, vector)[0] - [run.target for run in out]
    return dict(zip((run.name for run in out), found.tolist(), strict=True))


def cross_validate(
    runs: Sequence[Run], layout: Layout, prior: Floats, start: Floats, labels: Sequence[str] | None = None
) -> dict[str, float]:
    """Log of predicted over measured of each run, by a fit that saw no run with its label (by default its source).

    Runs labelled "" are never left out. Each fit goes on from `start`, the fit of all, which saves rounds; where it
    ends is decided by the runs it sees.
    """
    labels = [run.source for run in runs] if labels is None else labels
    work = partial(_left_out, runs=runs, labels=labels, layout=layout, prior=prior, start=start)
    found: dict[str, float] = {}
    with ProcessPoolExecutor(2) as pool:
        for part in pool.map(work, sorted({label for label in labels if label})):
            found |= part
    return found
