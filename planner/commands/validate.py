"""`plan validate`: published runs, predicted and measured side by side."""

from __future__ import annotations

from pathlib import Path

import click

from planner.commands.options import Finite
from planner.commands.output import Sheet, emit, format_options, talk
from planner.errors import CheckFailed, Fault, InputError
from planner.plan import Json
from planner.validate.score import validate

WORST = 15
PERCENT = 100.0


@click.command()
@click.argument("runs", metavar="RUNS.yaml", type=click.Path(path_type=Path))
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="Only these rows, e.g. gpu=H100 or source=MLPerf.")
@click.option(
    "--tolerance", type=Finite(min=0.0), help="Fail (exit 5) when the median time error is above this many percent."
)
@format_options
def command(runs: Path, where: tuple[str, ...], tolerance: float | None, form: str, quiet: bool) -> None:  # noqa: FBT001
    """Predict each published run of RUNS.yaml and compare with what was measured."""
    chosen = {}
    for item in where:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise InputError(Fault("--where", "expected KEY=VALUE", item))
        chosen[key] = value
    data = validate(runs, chosen)
    if not data["rows"]:
        raise InputError(Fault("--where", f"no row of {runs} matches", " ".join(where)))
    emit(form, data, lambda: _sheets(data))
    median = data["summary"]["time"]["median_abs_error"]
    if tolerance is not None and (median is None or PERCENT * median > tolerance):
        found = "no row was predicted" if median is None else f"the median time error is {PERCENT * median:.1f} %"
        raise CheckFailed(f"{found}; allowed {tolerance:g} %")
    talk(f"{data['summary']['unsupported']} rows refused, each with a reason in the JSON", quiet=quiet)


def _sheets(data: Json) -> list[Sheet]:
    summary = data["summary"]
    headers = ("rows", "n", "median", "mean", "P90", "bias", "in the 90 % interval")
    total = [_row("time, all", summary["time"]), _row("peak memory, all", summary["memory"])]
    sources = [_row(name, found) for name, found in summary["by_source"].items()]
    gpus = [_row(name, found) for name, found in summary["by_gpu"].items()]
    priced = [row for row in data["rows"] if row["error"] is not None]
    worst = sorted(priced, key=lambda row: -abs(row["error"]))[:WORST]
    return [
        Sheet("Predicted against measured, absolute relative error", headers, [*total, *gpus, *sources]),
        Sheet(
            "Worst rows",
            ("run", "measured", "predicted", "error"),
            [
                (r["id"], f"{r['measured_step_s']:.3g} s", f"{r['predicted_step_s']:.3g} s", _percent(r["error"]))
                for r in worst
            ],
        ),
    ]


def _row(name: str, found: Json) -> tuple[str, ...]:
    keys = ("median_abs_error", "mean_abs_error", "p90_abs_error", "bias", "coverage_90")
    return (name, str(found["n"]), *(_percent(found.get(key)) for key in keys))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{PERCENT * value:.1f} %"
