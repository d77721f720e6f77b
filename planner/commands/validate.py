"""`plan validate`: published runs, predicted and measured side by side."""

from __future__ import annotations

from pathlib import Path

import click

from planner.commands.options import Finite
from planner.commands.output import emit, format_options, progress, reports, talk
from planner.commands.validate_sheets import sheets
from planner.errors import CheckFailed, Fault, InputError
from planner.validate.score import selected, validate

PERCENT = 100.0


@click.command()
@click.argument("runs", metavar="RUNS.yaml", type=click.Path(path_type=Path))
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="Only these rows, e.g. gpu=H100 or source=MLPerf.")
@click.option(
    "--tolerance", type=Finite(min=0.0), help="Fail (exit 5) when the median time error is above this many percent."
)
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the accuracy page (HTML) here.")
@click.option("--dry-run", is_flag=True, help="Check the runs and say what would be predicted.")
@format_options
def command(
    runs: Path,
    where: tuple[str, ...],
    tolerance: float | None,
    report: Path | None,
    dry_run: bool,  # noqa: FBT001
    form: str,
    quiet: bool,  # noqa: FBT001
) -> None:
    """Predict each published run of RUNS.yaml (or a sweep's CSV) and compare with what was measured."""
    chosen = {}
    for item in where:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise InputError(Fault("--where", "expected KEY=VALUE", item))
        chosen[key] = value
    rows = selected(runs, chosen)
    if not rows:
        raise InputError(Fault("--where", f"no row of {runs} matches", " ".join(where)))
    if dry_run:
        page = f" and write {report}" if report else ""
        talk(f"would predict {len(rows):,} runs{page}; the inputs are sound", quiet=quiet)
        return
    data = validate(runs, rows, progress(quiet=quiet))
    if report:
        reports().write_accuracy(data, report)
        talk(f"wrote {report}", quiet=quiet)
    emit(form, data, lambda: sheets(data))
    median = data["summary"]["time"]["median_abs_error"]
    if tolerance is not None and (median is None or PERCENT * median > tolerance):
        found = "no row was predicted" if median is None else f"the median time error is {PERCENT * median:.1f} %"
        raise CheckFailed(f"{found}; allowed {tolerance:g} %")
    talk(f"{data['summary']['unsupported']} rows refused, each with a reason in the JSON", quiet=quiet)
