"""`python -m planner.fit RUNS [RUNS …] FOLDER`: writes fitted.toml and intervals.toml there, says how good they are.

The intervals are those of runs whose whole source was left out of the fit. `python -m planner.fit --budget RUNS
[RUNS …]` prints instead what each mechanism is worth (`planner.fit.budget`). `--page FILE` puts the table into a page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from planner import stack
from planner.errors import EXIT, Fault, InputError
from planner.files import write
from planner.fit.budget import budget, markdown
from planner.fit.problem import GRACE, PARAMETERS, Floats, Layout, Run, load
from planner.fit.quality import insert, order, residuals, table, words
from planner.fit.solve import cross_validate, errors, fit, layout_of
from planner.validate.intervals import fit_intervals, text, widening

LARGE = 1024  # GPUs; runs on more are left out to see how far smaller ones carry
NOVEL: dict[str, Callable[[Run], str]] = {
    "family": lambda run: stack.family(run.plan.setting.stack.name),
    "generation": lambda run: run.plan.setting.gpu.generation,
    "size": lambda run: "large" if run.plan.setting.cluster.gpus > LARGE else "",
}
"""What may be new about a plan, as the label of the runs that are left out together."""


def main(runs: Sequence[Run], folder: Path) -> str:
    """Fit all runs, then each time without one source, and write both results; the table of how good they are."""
    layout = layout_of(runs)
    prior = layout.prior()
    vector, spread = fit(runs, layout, prior, prior)
    outside = cross_validate(runs, layout, prior, vector)
    quality = words(np.array(list(outside.values())))
    write(folder / "fitted.toml", toml(runs, layout, vector, spread, quality))
    lines, wider = order(runs, outside), {}
    for name, label in NOVEL.items():
        novel = cross_validate(runs, layout, prior, vector, [label(run) for run in runs])
        wider[name] = widening(novel, outside) if novel else 1.0
        if novel:
            known = words(np.array([outside[run] for run in novel]))
            told = f"{words(np.array(list(novel.values())))}; {wider[name]:.2f} times as wide"
            lines.append(f"whole {name} left out ({len(novel)} runs): {told} as with the source left out ({known})")
    write(folder / "intervals.toml", intervals(runs, outside, wider))
    return table(runs, errors(runs, layout, vector), outside) + "\n" + "".join(f"- {line}\n" for line in lines)


def intervals(runs: Sequence[Run], outside: Mapping[str, float], wider: Mapping[str, float]) -> str:
    """The file of intervals from the log errors of runs left out with their source."""
    seen = {
        "families": sorted({stack.family(run.plan.setting.stack.name) for run in runs}),
        "generations": sorted({run.plan.setting.gpu.generation for run in runs}),
        "gpus": max(run.plan.setting.cluster.gpus for run in runs),
    }
    return text(fit_intervals(residuals(runs, outside)), wider, seen, _today())


def toml(runs: Sequence[Run], layout: Layout, vector: Floats, spread: Floats, quality: str) -> str:
    """The fitted values by stack, the clocks by GPU and format, with the data, the residuals and standard errors."""
    lines = [
        f"# Fitted on {len(runs)} published runs (robust least squares on log step time, priors from the stack files).",
        f"# Residuals with the run's whole source left out of the fit: {quality}.",
        "# Behind each value its standard error: a share of the value, for overlaps the plain difference.",
        "# Stacks without runs take their own file's values, moved as those of their family were.",
        f"date = {_today()}",
        "",
        "[host_pace]",
        f"{GRACE} = {np.exp(vector[-1]):.4g}  # {spread[-1]:.2g}",
        "",
        "[sustained]",
    ]
    clocks = np.exp(vector[layout.block : -1])
    generations = sorted({run.plan.setting.gpu.generation for run in runs})
    lines += [f"{name} = {layout.expected_clock(name, vector):.4g}" for name in generations]
    lines.append(f"all = {np.median(clocks):.4g}")
    for gpu in sorted({gpu for gpu, _ in layout.clocks}):
        lines += ["", f"[sustained.{gpu}]"]
        own = [(form, i) for i, (name, form) in enumerate(layout.clocks) if name == gpu]
        lines += [f"{form} = {clocks[i]:.4g}  # {spread[layout.block + i]:.2g}" for form, i in own]
    for start, name in enumerate(layout.stacks):
        mine = [run for run in runs if run.plan.setting.stack.name == name]
        values = layout.of(name, vector)
        errors_of = spread[start * len(PARAMETERS) :]
        lines += ["", f"[stacks.{name}]  # {len(mine)} runs"]
        lines += [f"{p.name} = {values[p.name]:.4g}  # {errors_of[i]:.2g}" for i, p in enumerate(PARAMETERS)]
    for name in stack.names():
        if name not in layout.stacks and "family" in stack.prior(name):
            lines += ["", f"[stacks.{name}]  # no runs"]
            lines += [f"{key} = {value:.4g}" for key, value in layout.expected_stack(name, vector).items()]
    return "\n".join(lines) + "\n"


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m planner.fit", description=__doc__)
    parser.add_argument("--budget", action="store_true", help="print what each mechanism is worth, write no fit")
    parser.add_argument("--page", type=Path, help="a page with the marks <!-- fit:begin --> (or budget) to put it in")
    parser.add_argument("files", nargs="+", type=Path, metavar="RUNS", help="published runs; the last names the folder")
    return parser.parse_args()


def _given() -> tuple[argparse.Namespace, list[Path], list[Run]]:
    """The options, the files of runs and what they hold; exits with a sentence where there is nothing to fit."""
    given = _arguments()
    files = given.files if given.budget else given.files[:-1]
    if not files:
        raise InputError(Fault("RUNS", "expected files of published runs, and last the folder for the results"))
    every = [run for file in files for run in load(file)]
    if not every:
        raise InputError(Fault("RUNS", "no run of these files is both predicted and measured"))
    return given, files, every


if __name__ == "__main__":
    try:
        given, files, every = _given()
    except InputError as error:
        _say(str(error))
        sys.exit(EXIT[InputError])
    shown = markdown(budget(every, _say), len(every)) if given.budget else main(every, given.files[-1])
    sys.stdout.write(shown)
    if given.page:
        names = " ".join([*(["--budget"] if given.budget else []), *(file.name for file in files)])
        made = f"\n{_today()}, `python -m planner.fit {names}`:\n\n{shown}\n"
        insert(given.page, "budget" if given.budget else "fit", made)
