"""One step of a plan, replayed: the schedule's program with the time of each stage's own layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner import schedules
from planner.estimate import estimate, units
from planner.layout import stage_counts
from planner.plan import Plan
from planner.setting import micro_batch_count
from planner.simulate.replay import Timeline, replay, stage_durations


@dataclass(frozen=True)
class Replay:
    """The timeline of the pipeline, and the closed form [s] of the same part of the step."""

    timeline: Timeline
    closed_form: float


def simulate(plan: Plan) -> Replay:
    """Replay the micro-batches of one step; sends take no time here (the closed form has a term of its own)."""
    setting, degrees = plan.setting, plan.degrees
    pp, vpp = int(degrees.pp), int(degrees.vpp)
    costs = [part.cost.time for part in units(setting, degrees)]
    counts = np.array(stage_counts(setting.model, setting.workload.seq_len, pp, vpp), dtype=np.float64)
    ahead = counts @ np.array([float(c.ahead) for c in costs])
    behind = counts @ np.array([float(c.behind) for c in costs])
    schedule = schedules.get(setting.choices.schedule)
    program = schedule.program(pp, vpp, int(micro_batch_count(setting, degrees)))
    spread = np.ones((1, vpp)) / vpp
    durations = stage_durations(schedule, ahead[:, None] * spread, behind[:, None] * spread)
    step = estimate(setting, degrees).step
    parts = ("compute", "launch", "recompute", "tensor", "context", "expert", "imbalance", "bubble")
    return Replay(replay(program, durations), float(sum(getattr(step, part) for part in parts)))
