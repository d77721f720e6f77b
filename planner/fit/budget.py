"""The error budget: `python -m planner.fit --budget RUNS…` prints what each mechanism of the cost model is worth.

Each mechanism is taken out alone. Its share is the part of the predicted step that goes with it; the errors are those
without it as the rest was fitted, then with the rest fitted again, in the sample and with whole sources left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from planner.fit.ablations import Ablation, ablations
from planner.fit.problem import Floats, Run
from planner.fit.solve import errors, fit, layout_of, solve
from planner.validate.summary import statistics

FOLDS = 3  # parts of the sources, each left out once: enough to compare mechanisms, and faster than source by source
ROUNDS, FOLD_ROUNDS = 8, 4  # of fits that go on from the fit of the whole model
PERCENT = 100.0
WHOLE = "none: all mechanisms"


class Quality(NamedTuple):
    """Median, mean and ninetieth percentile of absolute errors."""

    median: float
    mean: float
    p90: float


@dataclass(frozen=True)
class Line:
    """A mechanism, its median and ninetieth-percentile share of the step, and the errors without it."""

    name: str
    share: tuple[float, float]
    unfitted: Quality
    inside: Quality
    outside: Quality


def budget(runs: Sequence[Run], say: Callable[[str], object] = str, workers: int = 2) -> list[Line]:
    """The line of the whole model, then one for each mechanism, the one that is missed most first.

    `say` is told each mechanism when it is done.
    """
    layout = layout_of(runs)
    start = fit(runs, layout, layout.prior(), layout.prior())[0]
    work = partial(_line, runs=runs, start=start)
    with ProcessPoolExecutor(workers) as pool:
        found = []
        for line in pool.map(work, [Ablation(WHOLE, _same), *ablations(runs)]):
            say(f"without {line.name}: " + "; ".join(_three(each) for each in (line.inside, line.outside)))
            found.append(line)
    return [found[0], *sorted(found[1:], key=lambda line: -line.outside.mean)]


def markdown(lines: Sequence[Line], runs: int) -> str:
    """The lines as a table."""
    head = [
        f"{runs} runs; absolute errors of the step time as median / mean / ninetieth percentile.",
        "",
        "| without | share of the step, median (P90) | not refitted | refitted | refitted, sources left out |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(_row(line) for line in lines)]) + "\n"


def folds(runs: Sequence[Run], parts: int = FOLDS) -> list[set[str]]:
    """The sources in `parts` groups of about as many runs."""
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.source] = counts.get(run.source, 0) + 1
    found: list[set[str]] = [set() for _ in range(min(parts, len(counts)))]
    for source in sorted(counts, key=lambda name: (-counts[name], name)):
        min(found, key=lambda part: sum(counts[name] for name in part)).add(source)
    return found


def _line(ablation: Ablation, runs: Sequence[Run], start: Floats) -> Line:
    """What the model is without one mechanism."""
    full = layout_of(runs)
    changed = [ablation.change(run) for run in runs]
    before, without = (np.array(list(errors(each, full, start).values())) for each in (runs, changed))
    share = 1.0 - np.exp(without - before)
    layout = layout_of(changed)
    prior = layout.prior()
    vector = solve(changed, layout, start if layout == full else prior, prior, ROUNDS)
    outside: dict[str, float] = {}
    for part in folds(changed):
        kept = [run for run in changed if run.source not in part]
        found = solve(kept, layout, vector, prior, FOLD_ROUNDS) if kept else prior
        outside |= errors([run for run in changed if run.source in part], layout, found)
    inside = errors(changed, layout, vector)
    return Line(
        ablation.name,
        (float(np.median(share)), float(np.percentile(np.abs(share), 90))),
        quality(without),
        quality(np.array(list(inside.values()))),
        quality(np.array(list(outside.values()))),
    )


def quality(log_errors: Floats) -> Quality:
    """Statistics of the relative errors whose logarithms are given."""
    found = statistics(np.expm1(log_errors))
    return Quality(found["median_abs_error"], found["mean_abs_error"], found["p90_abs_error"])


def _same(run: Run) -> Run:
    return run


def _row(line: Line) -> str:
    share = "" if line.name == WHOLE else f"{_share(line.share[0])} ({_share(line.share[1])})"
    return f"| {' | '.join([line.name, share, *map(_three, (line.unfitted, line.inside, line.outside))])} |"


def _three(found: Quality) -> str:
    return " / ".join(f"{PERCENT * value:.1f}" for value in found) + " %"


def _share(value: float) -> str:
    return f"{PERCENT * value:.1f} %"
