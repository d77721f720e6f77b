"""`python -m planner.fit RUNS.yaml FOLDER`: writes fitted.toml and intervals.toml to FOLDER, says how good they are.

The intervals are those of runs whose whole source was left out of the fit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from planner.files import write
from planner.fit.problem import PARAMETERS, Layout, Run, load
from planner.fit.solve import Floats, cross_validate, errors, layout_of, solve
from planner.interval import regime
from planner.validate.intervals import fit_intervals, text


def main(runs_file: Path, folder: Path) -> None:
    """Fit all runs, then each time without one source, and write both files."""
    runs = load(runs_file)
    layout = layout_of(runs)
    prior = layout.prior()
    vector = solve(runs, layout, prior, prior)
    inside = errors(runs, layout, vector)
    sys.stderr.write(f"in sample: {_words(np.array(list(inside.values())))}\n")
    outside = cross_validate(runs, layout, prior)
    quality = _words(np.array(list(outside.values())))
    sys.stderr.write(f"source left out: {quality}\n")
    write(folder / "fitted.toml", toml(runs, layout, vector, quality))
    rows = [
        {
            "regime": regime(run.plan.setting),
            "error": outside[run.name],
            "measured_step_s": 1.0,
            "predicted_step_s": float(np.exp(outside[run.name])),
        }
        for run in runs
    ]
    found = text(fit_intervals({"rows": rows}), f"{datetime.now(UTC):%Y-%m-%d}")
    write(folder / "intervals.toml", found)


def toml(runs: Sequence[Run], layout: Layout, vector: Floats, quality: str) -> str:
    """The fitted values by stack, the clocks by generation, with the data and the residuals."""
    lines = [
        f"# Fitted on {len(runs)} published runs (robust least squares on log step time, priors from the stack files).",
        f"# Residuals with the run's whole source left out of the fit: {quality}.",
        f"date = {datetime.now(UTC):%Y-%m-%d}",
        "",
        "[sustained]",
    ]
    clocks = {run.generation: layout.of(run, vector)["sustained"] for run in runs}
    lines += [f"{name} = {value:.4g}" for name, value in sorted(clocks.items())]
    lines.append(f"all = {np.median(list(clocks.values())):.4g}")
    for name in layout.stacks:
        mine = [run for run in runs if run.plan.setting.stack.name == name]
        values = layout.of(mine[0], vector)
        lines += ["", f"[stacks.{name}]  # {len(mine)} runs"]
        lines += [f"{p.name} = {values[p.name]:.4g}" for p in PARAMETERS]
    return "\n".join(lines) + "\n"


def _words(log_errors: Floats) -> str:
    size = 100.0 * np.abs(np.expm1(log_errors))
    bias = 100.0 * float(np.median(np.expm1(log_errors)))
    return (
        f"median {np.median(size):.1f} %, mean {np.mean(size):.1f} %, P90 {np.percentile(size, 90):.1f} %, "
        f"bias {bias:+.1f} %"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
