"""A calibration from start to end: measure this machine, fit the planner's formulas, try the fit on unseen plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from executor.compare import Measured, compare, measured_record
from executor.fit.machine import Hardware, hardware
from executor.fit.stack import Run, fit_stack, mechanisms
from executor.measure import machine
from executor.measure.measurement import Measurement
from executor.measure.proxies import CLUSTER, STACK, Proxy, chosen
from executor.measure.quiet import Patience
from executor.measure.steps import measure as measure_steps
from executor.measure.sweeps import dtypes, sweep, volumes
from executor.measure.work import collective_rows, kernel_rows
from executor.ranks import Ranks
from hwprofiles import calibration, load
from hwprofiles.calibration import Calibration
from hwprofiles.spec import Cluster
from planner.calibrated import calibrated
from planner.plan import Json
from planner.record import Record

Tell = Callable[[str, float], None]
"""Called with what comes next and the share that is done, 0 to 1."""
STEPS_QUICK, STEPS_FULL = 7, 15
HELD_OUT = "step.held_out"


@dataclass(frozen=True)
class Request:
    """What to calibrate: up to `ranks` ranks of a `device` (cpu or cuda), on the profile of `cluster`.

    `patience` [s] in all is spent on waiting for other processes to be quiet.
    """

    device: str
    ranks: int
    quick: bool
    cluster: str = CLUSTER
    patience: float = 60.0


@dataclass(frozen=True)
class Sample:
    """A proxy and the record of its run."""

    proxy: Proxy
    record: Record


@dataclass(frozen=True)
class Outcome:
    """A calibration, the rows that it stands on, and how it does on each run (fitted or held out).

    `disturbance` is the mean number of cores that other processes used meanwhile.
    """

    calibration: Calibration
    rows: tuple[Measurement, ...]
    checks: tuple[Json, ...]
    left_out: tuple[str, ...]
    disturbance: float = 0.0


def run(request: Request, tell: Tell) -> Outcome:
    """Measure and fit. Steps are trained on CPUs only: what a GPU's stack costs is fitted on published runs."""
    with Ranks(request.ranks, backend="nccl" if request.device == "cuda" else "gloo") as pool:
        quiet = Patience(request.patience)
        rows = kernels(request, pool, tell, quiet)
        samples = steps(request, pool, tell, quiet) if request.device == "cpu" else []
    tell("fit", 0.97)
    return replace(fitted(request, rows, samples), disturbance=quiet.disturbance)


def kernels(request: Request, pool: Ranks, tell: Tell, quiet: Patience) -> list[Measurement]:
    """Rows of one rank's kernels, then of the collectives of 2, 4, … ranks."""
    name = machine.name(request.device)
    found: list[Measurement] = []
    for dtype in dtypes(request.device, quick=request.quick):
        tell(f"kernels in {dtype}", 0.02)
        quiet.wait()
        wanted = sweep(request.device, quick=request.quick)
        found += pool.run(kernel_rows, wanted, dtype, request.device, name, ranks=1)[0]
    count = 2
    while count <= request.ranks:
        tell(f"collectives of {count} ranks", 0.1 + 0.1 * count / request.ranks)
        quiet.wait()
        sizes = volumes(request.device, quick=request.quick)
        found += pool.run(collective_rows, sizes, request.device, name, ranks=count)[0]
        count *= 2
    return found


def steps(request: Request, pool: Ranks, tell: Tell, quiet: Patience) -> list[Sample]:
    """The record of every proxy that the ranks can run."""
    proxies = chosen(request.ranks, quick=request.quick)
    timed = STEPS_QUICK if request.quick else STEPS_FULL
    found = []
    for index, proxy in enumerate(proxies):
        tell(f"trains {proxy.name}", 0.25 + 0.7 * index / len(proxies))
        quiet.wait()
        found.append(Sample(proxy, measure_steps(proxy, pool, timed, request.device)))
    return found


def fitted(request: Request, rows: Sequence[Measurement], samples: Sequence[Sample]) -> Outcome:
    """The calibration that the measurements give, and its check on every run."""
    cluster = load.cluster(request.cluster)
    cores = machine.cores() if request.device == "cpu" else None
    found = hardware(rows, cluster, cores)
    base = _calibration(request, cluster, found)
    seen = [_run(sample, base) for sample in samples if sample.proxy.fitted]
    if seen:
        found_stack = fit_stack(seen)
        base = replace(
            base,
            stack_name=STACK,
            stack={
                **base.stack,
                **{name: float(f"{value:.5g}") for name, value in mechanisms(found_stack.values).items()},
            },
            residuals={**base.residuals, "stack": round(found_stack.residual, 4)},
        )
    checks = [_check(sample, base) for sample in samples]
    unseen = [abs(row["step"]["error"]) for row in checks if not row["fitted"]]
    if unseen:
        base = replace(base, residuals={**base.residuals, HELD_OUT: round(fmean(unseen), 4)})
    return Outcome(base, tuple(rows), tuple(checks), found.left_out)


def _calibration(request: Request, cluster: Cluster, found: Hardware) -> Calibration:
    made = calibration.of(
        cluster, found.numbers, found.residuals, machine.fingerprint(request.device, cluster.gpu.name)
    )
    if found.scatter_by_reduce is None:
        return made
    return replace(made, stack_name=STACK, stack={"scatter_by_reduce": float(found.scatter_by_reduce)})


def _run(sample: Sample, base: Calibration) -> Run:
    plan = sample.proxy.plan()
    plan = replace(plan, setting=calibrated(plan.setting, base))
    return Run(sample.proxy.name, plan, _measured(sample))


def _measured(sample: Sample) -> Measured:
    return measured_record(sample.record, "cpu")


def _check(sample: Sample, base: Calibration) -> dict[str, Any]:
    """Predicted and measured of one run, uncalibrated beside calibrated."""
    plan = sample.proxy.plan()
    found = compare(replace(plan, setting=calibrated(plan.setting, base)), _measured(sample), uncalibrated=plan)
    return {"name": sample.proxy.name, "ranks": sample.proxy.ranks, "fitted": sample.proxy.fitted, **found}
