"""`plan compare`: a plan's prediction beside a measured run of it, phase by phase."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from executor import importers
from executor.compare import Measured, compare, measured_log, measured_record, side_by_side, worst
from hwprofiles import calibration
from hwprofiles.quantity import format as human
from planner.calibrated import calibrated
from planner.commands.options import Finite
from planner.commands.output import Sheet, emit, format_options, talk, to_json
from planner.errors import CheckFailed, Fault, InputError
from planner.files import write
from planner.plan import Json, Plan, provenance, read, strategy_json
from planner.plan_file import read_json
from planner.provenance import SCHEMA_VERSION, tool_version
from planner.record import Record
from planner.simulate.phases import simulated

PERCENT = 100.0
HELD_OUT = "step.held_out"


@click.command()
@click.argument("plan_file", metavar="PLAN.json", type=click.Path(path_type=Path))
@click.argument("run_file", metavar="RECORD.json|LOG", type=click.Path(path_type=Path))
@click.option("--calibration", "calibration_file", metavar="FILE", help="Numbers measured by `plan calibrate`.")
@click.option(
    "--tolerance", type=Finite(min=0.0), help="Fail (exit 5) when the step is off by more than this many percent."
)
@click.option("--trace", "trace_file", type=click.Path(path_type=Path, dir_okay=False),
              help="Perfetto trace to write: measured ranks beside the predicted ones.")  # fmt: skip
@format_options
def command(
    plan_file: Path,
    run_file: Path,
    calibration_file: str | None,
    tolerance: float | None,
    trace_file: Path | None,
    form: str,
    quiet: bool,  # noqa: FBT001
) -> None:
    """Predict PLAN.json and compare with RECORD.json of `plan run`, or with a log of Megatron-LM or torchtitan."""
    plan = read(plan_file)
    found = _record(run_file)
    measured = _measured(plan, found, run_file)
    chosen, name, residual = _calibrated(plan, calibration_file)
    data = {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        **compare(chosen, measured, plan if calibration_file else None, residual),
        "calibration": name,
        "provenance": provenance(chosen),
    }
    if trace_file:
        if found is None:
            raise InputError(Fault("--trace", "a training log has no timeline; give a record.json", str(run_file)))
        write(trace_file, to_json(side_by_side(simulated(chosen), found)))
        talk(f"wrote {trace_file}; open it at ui.perfetto.dev", quiet=quiet)
    emit(form, data, lambda: _sheets(data))
    error = data["step"]["error"]
    if tolerance is not None and PERCENT * abs(error) > tolerance:
        raise CheckFailed(f"the predicted step is off by {PERCENT * error:+.1f} %; allowed {tolerance:g} %")


def _record(path: Path) -> Record | None:
    """The record in a file; None when it is something else, which the importers then read."""
    try:
        data = read_json(path, "record.json")
    except InputError:
        return None
    return Record.from_json(data, str(path)) if "phases" in data and "steps" in data else None


def _measured(plan: Plan, found: Record | None, path: Path) -> Measured:
    if found is not None:
        _same(plan, found, path)
        return measured_record(found, "cpu" if plan.setting.gpu.generation == "cpu" else "wall")
    imported = importers.load(path)
    if imported.log is None:
        raise InputError(Fault(str(path), "is no run: expected a record.json or a training log"))
    return measured_log(imported.log, plan)


def _same(plan: Plan, found: Record, path: Path) -> None:
    """Refuse a record of another plan: what differs would be taken for an error of the prediction."""
    ran = found.plan.get("estimate", {}).get("strategy", {}) if isinstance(found.plan, dict) else {}
    here = strategy_json(plan.setting, plan.degrees)
    faults = [
        Fault(f"{path}: plan.estimate.strategy.{key}", f"the compared plan has {value}", ran[key])
        for key, value in here.items()
        if key in ran and ran[key] != value
    ]
    if faults:
        raise InputError(*faults)


def _calibrated(plan: Plan, file: str | None) -> tuple[Plan, str | None, float | None]:
    """The plan with a calibration, its name and its error on runs that it was not fitted on."""
    if file is None:
        return plan, None, None
    found = calibration.load(file)
    setting = calibrated(plan.setting, found)
    return (
        replace(plan, setting=setting, calibration=file),
        f"{found.name} ({found.date})",
        found.residuals.get(HELD_OUT),
    )


def _sheets(data: Json) -> list[Sheet]:
    both = "uncalibrated_s" in data["step"]
    head = ("phase", "predicted", "measured", "error", *(("uncalibrated",) if both else ()))
    rows = [_row(row["phase"], row, both=both) for row in data["rows"]]
    rows.append(_row("step", data["step"], both=both))
    kind = "CPU time of the mean rank" if data["clock"] == "cpu" else "wall clock"
    low, high = data["step"]["interval_s"]
    lines = [f"One step, {kind}; 90 % interval {human(low, 's')} - {human(high, 's')}"]
    if largest := worst(data["rows"]):
        gap = abs(largest["predicted_s"] - largest["measured_s"])
        lines.append(f"The largest difference is in {largest['phase']}: {human(gap, 's')}.")
    return [Sheet("Predicted beside measured", head, rows, tuple(lines))]


def _row(name: str, row: Json, *, both: bool) -> tuple[str, ...]:
    found = "-" if row["measured_s"] is None else human(row["measured_s"], "s")
    error = "-" if row["error"] is None else f"{PERCENT * row['error']:+.1f} %"
    return (name, human(row["predicted_s"], "s"), found, error, *((human(row["uncalibrated_s"], "s"),) if both else ()))
