"""`plan calibrate`: this machine measured, the planner's formulas fitted to it; or fitted to what others measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Self

import click

from executor import available, importers
from executor.fit.machine import hardware
from executor.measure.measurement import Measurement, to_lines
from hwprofiles import calibration, load
from hwprofiles.calibration import Calibration
from planner.commands.options import Count, Finite
from planner.commands.output import Sheet, emit, format_options, talk
from planner.errors import Fault, InputError
from planner.files import write
from planner.plan import Json
from planner.provenance import SCHEMA_VERSION, tool_version

HERE = "cpu-loopback"
MOST_RANKS = 64
PERCENT = 100.0
DISTURBED = 0.5  # cores
MEANS = ("mean", "worst", "uncalibrated_mean")


@click.command()
@click.option(
    "--ranks", type=Count(MOST_RANKS), help="Most ranks to measure. Default: a GPU or a core each, at most 4."
)
@click.option("--quick", is_flag=True, help="Fewer shapes, sizes and plans: minutes less, some accuracy too.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--patience", type=Finite(0.0, 86400.0), default=60.0, show_default=True,
              help="Seconds to wait, in all, for other processes to be quiet.")  # fmt: skip
@click.option("--cluster", help=f"Profile that the numbers replace. Default: {HERE} on a CPU; needed on a GPU.")
@click.option("--from", "files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Fit on this instead: nccl-tests, a PyTorch trace, rows of an earlier run. Repeatable.")  # fmt: skip
@click.option(
    "--rows", "rows_file", type=click.Path(path_type=Path, dir_okay=False), help="Write every measurement here."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="calibration.toml", show_default=True,
              help="The file to write.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be measured.")
@format_options
def command(
    ranks: int | None,
    quick: bool,  # noqa: FBT001
    device: str,
    patience: float,
    cluster: str | None,
    files: tuple[Path, ...],
    rows_file: Path | None,
    out: Path,
    dry_run: bool,  # noqa: FBT001
    form: str,
    quiet: bool,  # noqa: FBT001
) -> None:
    """Measure this machine, fit the planner's formulas, and write a calibration that `--calibration` reads."""
    if files:
        made, rows, checks, left_out = _from_files(files, cluster)
    else:
        found = _measured(ranks, device, cluster, patience, quick=quick, dry_run=dry_run, quiet=quiet)
        if found is None:
            return
        made, rows, checks, left_out = found
    if not dry_run:
        if rows_file:
            write(rows_file, to_lines(rows))
        write(out, calibration.dumps(made))
        talk(f"wrote {out}; use it with --calibration {out}", quiet=quiet)
    for reason in left_out:
        talk(f"left out: {reason}", quiet=quiet)
    emit(form, _json(made, rows, checks, left_out), lambda: _sheets(made, checks))


Found = tuple[Calibration, Sequence[Measurement], Sequence[Json], Sequence[str]]


def _from_files(files: tuple[Path, ...], cluster: str | None) -> Found:
    """A calibration of the hardware from rows that others measured; needs no torch."""
    if cluster is None:
        raise InputError(Fault("--cluster", "is needed with --from: name the cluster that was measured"))
    faults: list[Fault] = []
    rows: list[Measurement] = []
    for file in files:
        try:
            found = importers.load(file)
        except InputError as error:
            faults += error.faults
            continue
        rows += found.rows
        if found.log:
            faults.append(Fault(str(file), "is a training log: it has no kernels to fit; `plan compare` reads it"))
    if faults:
        raise InputError(*faults)
    profile = load.cluster(cluster)
    fitted = hardware(rows, profile)
    if not fitted.numbers:
        expected = "more rows are needed to fit anything"
        raise InputError(
            Fault(", ".join(str(file) for file in files), expected, "; ".join(fitted.left_out) or len(rows))
        )
    made = calibration.of(profile, fitted.numbers, fitted.residuals, {"measured on": rows[0].name or "unknown"})
    return made, rows, (), fitted.left_out


def _measured(
    ranks: int | None, device: str, cluster: str | None, patience: float, *, quick: bool, dry_run: bool, quiet: bool
) -> Found | None:
    """A calibration of this machine; None when it was only to be told what would be done."""
    if not available():
        raise InputError(Fault("torch", "is not installed: pip install 'myriad-planner[executor]'"))
    from executor import calibrate  # noqa: PLC0415  torch
    from executor.device import device as find  # noqa: PLC0415
    from executor.measure import machine  # noqa: PLC0415
    from executor.measure.proxies import chosen  # noqa: PLC0415

    here = find(device)
    if here.kind == "cuda" and cluster is None:
        raise InputError(Fault("--cluster", "is needed on a GPU: name the cluster that this machine belongs to"))
    count = ranks or min(here.count if here.kind == "cuda" else machine.cores(), 4)
    if here.kind == "cuda" and count > here.count:
        raise InputError(Fault("--ranks", f"this machine has {here.count} GPUs", count, str(here.count)))
    request = calibrate.Request(here.kind, count, quick, cluster or HERE, patience)
    load.cluster(request.cluster)
    if dry_run:
        trained = len(chosen(count, quick=quick)) if here.kind == "cpu" else 0
        talk(
            f"would measure {machine.name(here.kind)}: kernels, collectives of up to {count} ranks, {trained} trainings"
        )
        return None
    with _Bar(quiet=quiet) as bar:
        made = calibrate.run(request, bar.tell)
    if made.disturbance > DISTURBED:
        used = f"other processes used {made.disturbance:.1f} cores on average"
        talk(f"warning: {used}; calibrate again on a quiet machine", quiet=quiet)
    return made.calibration, made.rows, made.checks, made.left_out


class _Bar:
    """Progress on stderr: a bar on a terminal, a line for each thing elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        console = Console(stderr=True, quiet=quiet)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("calibrate", total=1.0)
        self._quiet = quiet or console.is_terminal

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def tell(self, what: str, share: float) -> None:
        """Show what is under way."""
        self._bar.update(self._task, description=what, completed=share)
        talk(f"{PERCENT * share:3.0f} %  {what}", quiet=self._quiet)


def _json(made: Calibration, rows: Sequence[Measurement], checks: Sequence[Json], left_out: Sequence[str]) -> Json:
    numbers = {
        key: {"value": datum.value, "unit": datum.unit, "source": datum.source} for key, datum in made.numbers.items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "name": made.name,
        "date": made.date,
        "machine": dict(made.machine),
        "measurements": len(rows),
        "numbers": numbers,
        "stack": {"name": made.stack_name, **made.stack},
        "residuals": dict(made.residuals),
        "left_out": list(left_out),
        "summary": summary(checks),
        "checks": list(checks),
    }


def summary(checks: Sequence[Json]) -> Json:
    """Mean and largest error of the step by ranks, of fitted and held-out plans, and of the share of bubble."""
    found: Json = {}
    for ranks in sorted({check["ranks"] for check in checks}):
        mine = [check for check in checks if check["ranks"] == ranks]
        kinds = {"fitted": [c for c in mine if c["fitted"]], "held_out": [c for c in mine if not c["fitted"]]}
        found[str(ranks)] = {kind: _errors(rows) for kind, rows in kinds.items() if rows}
    return found


def _errors(checks: Sequence[Json]) -> Json:
    errors = [abs(check["step"]["error"]) for check in checks]
    before = [abs(check["step"]["uncalibrated_error"]) for check in checks]
    found = {"n": len(errors), "mean": fmean(errors), "worst": max(errors), "uncalibrated_mean": fmean(before)}
    waits = [abs(check["bubble"]["difference"]) for check in checks if check["bubble"]]
    return found | ({"bubble_difference_mean": fmean(waits)} if waits else {})


def _sheets(made: Calibration, checks: Sequence[Json]) -> list[Sheet]:
    fits = [(name, f"{PERCENT * error:.1f} %") for name, error in made.residuals.items()]
    sheets = [
        Sheet("Calibration", ("number", "value"), [(key, datum.text) for key, datum in made.numbers.items()]),
        Sheet(f"Stack {made.stack_name}", ("mechanism", "value"), [(k, f"{v:.4g}") for k, v in made.stack.items()]),
        Sheet("Fits", ("law", "mean error"), fits),
    ]
    rows = [_check_row(check) for check in sorted(checks, key=lambda check: not check["fitted"])]
    head = ("plan", "seen", "measured", "calibrated", "error", "uncalibrated", "error")
    means = [
        (f"{ranks} ranks", kind.replace("_", " "), str(e["n"]), *(f"{PERCENT * e[key]:.1f} %" for key in MEANS))
        for ranks, kinds in summary(checks).items()
        for kind, e in kinds.items()
    ]
    sheets.append(Sheet("CPU time of a step", head, rows))
    sheets.append(Sheet("Mean errors", ("ranks", "seen", "plans", "mean", "worst", "uncalibrated"), means))
    return [sheet for sheet in sheets if sheet.rows]


def _check_row(check: Json) -> tuple[str, ...]:
    step = check["step"]
    return (
        check["name"],
        "fitted" if check["fitted"] else "held out",
        f"{1e3 * step['measured_s']:.1f} ms",
        f"{1e3 * step['predicted_s']:.1f} ms",
        f"{PERCENT * step['error']:+.1f} %",
        f"{1e3 * step['uncalibrated_s']:.1f} ms",
        f"{PERCENT * step['uncalibrated_error']:+.1f} %",
    )
