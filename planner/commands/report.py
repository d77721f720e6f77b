"""`plan report`: a plan, a training of `plan train` or a validation, as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from planner.commands.output import reports, talk
from planner.errors import Fault, InputError
from planner.explain.document import document
from planner.plan import Json, of_json
from planner.plan_file import read_json

TRAINING = frozenset({"recipe", "curve", "evaluations", "strategy"})
TUNING = frozenset({"recipe", "trials", "searched", "best"})
"""Keys by which the artefacts of `plan train` are known."""
VALIDATION = frozenset({"rows", "summary"})
"""Keys by which the JSON of `plan validate` is known."""
SUMMARY = frozenset({"time", "memory", "by_source", "by_kind", "by_scale", "sets", "ranking", "scaling"})
ROW = frozenset({"id", "status", "reason", "measured_step_s", "predicted_step_s", "interval_s", "error", "time"})
"""What the accuracy page draws of its summary and of each row."""


@click.command()
@click.argument("plan_file", metavar="PLAN.json", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default="report.html", show_default=True, help="The page."
)
@click.option("--comparison", type=click.Path(path_type=Path), metavar="FILE", help="JSON of `plan compare` to show.")
@click.option("--dry-run", is_flag=True, help="Check the plan and write nothing.")
@click.option("--quiet", is_flag=True, help="No talk on stderr.")
def command(plan_file: Path, out: Path, comparison: Path | None, dry_run: bool, quiet: bool) -> None:  # noqa: FBT001
    """Write PLAN.json, what `plan train` wrote, or the JSON of `plan validate`, as one offline HTML page."""
    data = read_json(plan_file)
    trained, validated = data.keys() >= TRAINING or data.keys() >= TUNING, data.keys() >= VALIDATION
    if comparison and (trained or validated):
        kind = "training" if trained else "validation"
        raise InputError(Fault("--comparison", f"belongs to a plan, and this is a {kind}", str(plan_file)))
    if validated and not _complete(data):
        raise InputError(Fault(str(plan_file), "is no complete validation; write it anew with `plan validate --json`"))
    found = _compared(comparison) if comparison else None
    data = data if trained or validated else document(of_json(data, str(plan_file)))
    if dry_run:
        talk(f"would write {out}", quiet=quiet)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if trained:
        reports().write_training(data, out)
    elif validated:
        reports().write_accuracy(data, out)
    else:
        reports().write_plan(data, None, out, found)
    talk(f"wrote {out}", quiet=quiet)


def _complete(data: Json) -> bool:
    """Whether a validation has all that its page draws (an older version printed less)."""
    rows, summary = data["rows"], data["summary"]
    whole = isinstance(summary, dict) and summary.keys() >= SUMMARY and data.keys() >= {"tool_version", "provenance"}
    return whole and isinstance(rows, list) and all(isinstance(row, dict) and row.keys() >= ROW for row in rows)


def _compared(path: Path) -> Json:
    """The object that `plan compare --json` printed."""
    data = read_json(path, "comparison", "write one with `plan compare PLAN.json RECORD.json --json`")
    if not {"rows", "step", "clock"} <= data.keys():
        raise InputError(Fault(str(path), "is no comparison: `rows`, `step` and `clock` are expected"))
    return data
