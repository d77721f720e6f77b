"""How good a fit is, as a table: errors in the sample and with sources left out, and how often intervals hold."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from planner.files import write
from planner.fit.problem import Floats, Run
from planner.interval import regime
from planner.validate.intervals import Residual, covered
from planner.validate.ranking import ranking
from planner.validate.scaling import scaling
from planner.validate.summary import statistics

PERCENT = 100.0
HEAD = ("runs", "n", "median", "mean", "P90", "bias", "in 90 % intervals of other sources")


def residuals(runs: Sequence[Run], log_errors: Mapping[str, float]) -> list[Residual]:
    """Measured over predicted of each run, whose log errors are given by name."""
    return [Residual(run.source, regime(run.plan.setting), float(np.exp(-log_errors[run.name]))) for run in runs]


def table(runs: Sequence[Run], inside: Mapping[str, float], outside: Mapping[str, float]) -> str:
    """Markdown: all runs in the sample, then by set, kind, regime and source, each source left out of its fit."""
    hold = dict(zip((run.name for run in runs), covered(residuals(runs, outside)), strict=True))
    rows = [("all, in the sample", str(len(runs)), *cells(np.array(list(inside.values()))), "")]
    for name, part in parts(runs).items():
        share = float(np.mean([hold[run.name] for run in part]))
        errors = np.array([outside[run.name] for run in part])
        rows.append((name, str(len(part)), *cells(errors), f"{PERCENT * share:.1f} %"))
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def order(runs: Sequence[Run], log_errors: Mapping[str, float]) -> list[str]:
    """Sentences on how layouts are ranked and growth is predicted with these log errors (`plan validate` explains)."""
    rows = [
        {
            **run.facts,
            "measured_step_s": math.exp(run.target),
            "predicted_step_s": math.exp(run.target + log_errors[run.name]),
            "error": math.expm1(log_errors[run.name]),
        }
        for run in runs
    ]
    ranked, grown, lines = ranking(rows), scaling(rows), []
    for name, found in (("all", ranked), *ranked["by_source"].items()):
        if found["mean_tau"] is not None:
            regret = f"regret {PERCENT * found['mean_regret']:.1f} %"
            lines.append(f"Kendall's tau, {name} (groups of layouts: {found['n']}): {found['mean_tau']:.2f}, {regret}")
    if ranked["clear_pairs"]["n"]:
        share = PERCENT * ranked["clear_pairs"]["in_order"]
        lines.append(f"layouts more than 3 % apart: {share:.1f} % of {ranked['clear_pairs']['n']:,} pairs are in order")
    if grown["n"]:
        within = f"{PERCENT * grown['within_tolerance']:.0f} % within {grown['tolerance']}"
        lines.append(f"slopes over GPUs ({grown['n']} series): median {grown['median_abs_error']:.3f} off, {within}")
    return lines


def parts(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs by what they have in common, in the order of the table."""
    mixtures = [run for run in runs if run.plan.setting.model.experts]
    found = {"all, source left out": list(runs), "mixtures of experts": mixtures}
    for name in sorted({name for run in runs for name in run.facts["sets"]}):
        found[name.replace("_", " ")] = [run for run in runs if name in run.facts["sets"]]
        found[f"{name.replace('_', ' ')}, mixtures"] = [run for run in mixtures if name in run.facts["sets"]]
    for name in sorted({regime(run.plan.setting) for run in runs}):
        found[name] = [run for run in runs if regime(run.plan.setting) == name]
    for source in sorted({run.source for run in runs}):
        found[source] = [run for run in runs if run.source == source]
    return {name: part for name, part in found.items() if part}


def cells(log_errors: Floats) -> tuple[str, str, str, str]:
    """Median, mean and ninetieth percentile of the absolute relative errors, and the signed median."""
    found = statistics(np.expm1(log_errors))
    sizes = (found[f"{name}_abs_error"] for name in ("median", "mean", "p90"))
    median, mean, ninetieth = (f"{PERCENT * size:.1f} %" for size in sizes)
    return median, mean, ninetieth, f"{PERCENT * found['bias']:+.1f} %"


def words(log_errors: Floats) -> str:
    """The same in one line."""
    median, mean, ninetieth, bias = cells(log_errors)
    return f"median {median}, mean {mean}, P90 {ninetieth}, bias {bias}"


def insert(page: Path, name: str, text: str) -> None:
    """Put `text` between the marks `<!-- name:begin -->` and `<!-- name:end -->` of a page; ValueError without them."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    found = page.read_text(encoding="utf-8")
    made, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}{end}", found, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{page} has {count} places between {begin} and {end}; 1 is expected")
    write(page, made)
