"""Predicted beside measured: one step of a plan by phase and in total, and both timelines in one trace.

On CPUs the time is that of the processes, the mean over ranks: shared cores and waiting don't disturb it. Elsewhere it
is the wall clock. Waiting for other stages (the bubble) is a phase of its own and never part of CPU time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from executor.importers.base import Log
from planner.errors import Fault, InputError
from planner.interval import interval
from planner.plan import Json, Plan
from planner.record import Phases, Record
from planner.simulate.phases import simulated
from planner.simulate.trace import trace

WARM_UP = 2  # steps that are left out where more than twice as many were made
SMALLEST = 1e-5  # s; a phase of less on both sides is left out
NORMAL_90 = 2.06  # half a 90 % interval over the mean absolute error of normal residuals
OTHER = "host"


@dataclass(frozen=True)
class Measured:
    """A run's step: `step` [s] by `clock` (cpu or wall), its `phases` where known, wall [s], peak memory [B]."""

    step: float
    clock: str
    phases: Mapping[str, float]
    wall: float
    peak_memory_bytes: float | None


def measured_record(record: Record, clock: str) -> Measured:
    """The median step of a record, without its first steps."""
    steps = record.steps[WARM_UP:] if len(record.steps) > 2 * WARM_UP else record.steps
    if not steps:
        raise InputError(Fault("record.json: steps", "at least one step is expected", 0))
    wall = median(step.wall_s for step in steps)
    on_cpu = median(sum(step.cpu_s) / len(step.cpu_s) for step in steps if step.cpu_s) if steps[0].cpu_s else wall
    total = on_cpu if clock == "cpu" else wall
    return Measured(
        total, clock, phase_times(record.phases, total, clock), wall, max(record.peak_memory_bytes, default=0)
    )


def measured_log(log: Log, plan: Plan) -> Measured:
    """The median step of a training log; a log of rates needs the plan's tokens per step."""
    setting = plan.setting
    rank_tokens = setting.workload.tokens_per_step / int(plan.degrees.world)
    times = [
        s.seconds or rank_tokens / (s.tokens_per_s or rank_tokens) for s in log.steps if s.seconds or s.tokens_per_s
    ]
    times = times[WARM_UP:] if len(times) > 2 * WARM_UP else times
    if not times:
        raise InputError(Fault(f"{log.program} log", "at least one step with its time is expected", 0))
    step = median(times)
    return Measured(step, "wall", dict(log.phases), step, log.peak_memory_bytes)


def phase_times(phases: Phases, total: float, clock: str) -> dict[str, float]:
    """Phases as rows: what the step has beyond them is the host's; the bubble belongs to the wall clock alone."""
    work = {"forward": phases.forward, "backward": phases.backward, **phases.collectives, "optimizer": phases.optimizer}
    known = sum(work.values()) + (phases.bubble if clock == "wall" else 0.0)
    return {**work, "bubble": phases.bubble, OTHER: max(total - known, 0.0)}


def compare(plan: Plan, measured: Measured, uncalibrated: Plan | None = None, residual: float | None = None) -> Json:
    """The comparison as the contract has it; `uncalibrated` adds what the profiles alone predict.

    `residual` is the mean absolute error that the calibration had on runs it was not fitted on: it makes the interval.
    """
    found = simulated(plan)
    step = _step(found, measured.clock)
    profile = simulated(uncalibrated) if uncalibrated else None
    before = _phases(profile, measured.clock) if profile else {}
    rows = [
        {**_row(name, seconds, measured.phases.get(name)), **({"uncalibrated_s": before[name]} if before else {})}
        for name, seconds in _phases(found, measured.clock).items()
        if max(seconds, measured.phases.get(name, 0.0)) >= SMALLEST
    ]
    half = NORMAL_90 * residual if residual else None
    bounds = (step * max(1.0 - half, 0.0), step * (1.0 + half)) if half else interval(plan.setting, step)
    total: Json = {**_error(step, measured.step), "interval_s": list(bounds)}
    if profile:
        total["uncalibrated_s"] = _step(profile, measured.clock)
        total["uncalibrated_error"] = total["uncalibrated_s"] / measured.step - 1.0
    return {
        "clock": measured.clock,
        "rows": rows,
        "step": total,
        "wall": _error(found.steps[0].wall_s, measured.wall),
        "bubble": _bubble(phase_times(found.phases, step, measured.clock), measured.phases),
        "memory": _memory(max(found.peak_memory_bytes), measured.peak_memory_bytes),
    }


def side_by_side(expected: Record, found: Record) -> Json:
    """One Perfetto trace of both: the ranks as measured, then the same ranks as predicted."""
    drawn = [trace(record)["traceEvents"] for record in (found, expected)]
    events: list[Json] = []
    for side, name in enumerate(("measured", "predicted")):
        for event in drawn[side]:
            moved = {**event, "pid": 2 * event["pid"] + side}
            if event["ph"] == "M" and event["name"] == "process_name":
                moved["args"] = {"name": f"{event['args']['name']} {name}"}
            events.append(moved)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def worst(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row that adds most seconds of error, None when nothing was measured by phase."""
    known = [row for row in rows if row["measured_s"] is not None]
    return max(known, key=lambda row: abs(row["predicted_s"] - row["measured_s"]), default=None)


def _phases(record: Record, clock: str) -> dict[str, float]:
    return phase_times(record.phases, _step(record, clock), clock)


def _step(record: Record, clock: str) -> float:
    step = record.steps[0]
    return sum(step.cpu_s) / len(step.cpu_s) if clock == "cpu" else step.wall_s


def _row(name: str, seconds: float, found: float | None) -> Json:
    error = seconds / found - 1.0 if found and found >= SMALLEST else None
    return {"phase": name, "predicted_s": seconds, "measured_s": found, "error": error}


def _error(seconds: float, found: float) -> Json:
    return {"predicted_s": seconds, "measured_s": found, "error": seconds / found - 1.0}


def bubble_share(phases: Mapping[str, float]) -> float:
    """Waiting over waiting and the work of the passes, what the layers exchange included."""
    work = sum(phases.get(name, 0.0) for name in ("forward", "backward", "tensor", "context", "expert"))
    waiting = phases.get("bubble", 0.0)
    return waiting / (waiting + work) if waiting else 0.0


def _bubble(expected: Mapping[str, float], found: Mapping[str, float]) -> Json | None:
    """The share of the pipeline's time that the mean rank waits; None where nobody waits."""
    if not expected.get("bubble") or "bubble" not in found:
        return None
    shares = {"predicted": bubble_share(expected), "measured": bubble_share(found)}
    return {**shares, "difference": shares["predicted"] - shares["measured"]}


def _memory(expected: float, found: float | None) -> Json | None:
    if not found:
        return None
    return {"predicted_bytes": expected, "measured_bytes": found, "error": expected / found - 1.0}
