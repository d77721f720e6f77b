"""A step by phase as a rank of each stage spends it: the planner's side of what a run measures.

The closed form prices the busiest rank and what stays exposed; a run counts the work of every rank. So each stage is
priced with its own layers, every message at both of its ends, and waiting comes from the replay alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from planner import schedules
from planner.collectives.base import path
from planner.collectives.point_to_point import point_to_point
from planner.cost.data_parallel import data_time, optimizer_time, sharding_time, split_time
from planner.cost.groups import groups
from planner.cost.layer import LayerTime
from planner.estimate import units
from planner.layout import stage_counts
from planner.plan import Plan, provenance
from planner.plan import plan_json as to_json
from planner.record import Phases, Record, Step
from planner.setting import Setting, micro_batch_count, sharded_tokens
from planner.sharding import stage_held
from planner.simulate.replay import Timeline, replay, stage_durations
from planner.simulate.trace import pipeline_events
from planner.strategy import Degrees


@dataclass(frozen=True)
class StagePhases:
    """Seconds of one step on a rank of one stage; `host` is the framework's work that belongs to no layer."""

    forward: float
    backward: float
    optimizer: float
    collectives: Mapping[str, float]
    host: float

    @property
    def total(self) -> float:
        """All work of the rank, without waiting [s]."""
        return self.forward + self.backward + self.optimizer + sum(self.collectives.values()) + self.host


def stage_phases(setting: Setting, degrees: Degrees) -> list[StagePhases]:
    """The phases of each stage of a plan of plain ints [pp]."""
    parts = units(setting, degrees)
    counts = stage_counts(setting.model, setting.workload.seq_len, int(degrees.pp), int(degrees.vpp))
    held = tuple(part.cost.held for part in parts)
    micro = int(micro_batch_count(setting, degrees))
    schedule = schedules.get(setting.choices.schedule)
    gap = setting.stack.pass_gap * int(degrees.vpp)
    message = _messages(setting, degrees, micro)
    found = []
    for layers in counts:
        time = _sum(layers, [part.cost.time for part in parts])
        owned = stage_held(held, layers, setting.model, degrees)
        forward, backward = time.forward + time.launch_forward, time.backward + time.launch_backward + time.recompute
        busy, depth = (micro, time.ahead, time.behind), float(sum(layers))
        sharded = sharding_time(owned, depth, setting, degrees, micro)
        split = float(split_time(owned, setting, micro)) * schedule.splits_backward
        exchanged = {"tensor": time.tensor, "context": time.context, "expert": time.expert}
        found.append(
            StagePhases(
                forward=micro * float(forward + gap) + float(sharded[0]),
                backward=micro * float(backward + gap * (1 + schedule.splits_backward)) + float(sharded[1]) + split,
                optimizer=float(optimizer_time(owned, setting, degrees)),
                collectives={
                    **{name: micro * float(seconds) for name, seconds in exchanged.items()},
                    "pipeline": message,
                    "data": float(data_time(owned, depth, setting, degrees, busy)),
                },
                host=setting.stack.step_overhead,
            )
        )
    return found


def timeline(plan: Plan) -> Timeline:
    """The replay of the plan's micro-batches, each stage with its own layers; sends take their time."""
    setting, degrees = plan.setting, plan.degrees
    vpp, micro = int(degrees.vpp), int(micro_batch_count(setting, degrees))
    schedule = schedules.get(setting.choices.schedule)
    stages = stage_phases(setting, degrees)
    shared = [0.5 * sum(stage.collectives[name] for name in ("tensor", "context", "expert")) for stage in stages]
    spread = np.full((1, vpp), 1.0 / (vpp * micro))
    ahead = np.array([stage.forward + half for stage, half in zip(stages, shared, strict=True)])[:, None] * spread
    behind = np.array([stage.backward + half for stage, half in zip(stages, shared, strict=True)])[:, None] * spread
    program = schedule.program(int(degrees.pp), vpp, micro)
    return replay(program, stage_durations(schedule, ahead, behind), _message(setting, degrees))


def simulated(plan: Plan) -> Record:
    """The record that a run of the plan is predicted to leave: one step, its phases, the pipeline's events."""
    stages, drawn = stage_phases(plan.setting, plan.degrees), timeline(plan)
    each = int(plan.degrees.world) // int(plan.degrees.pp)
    after = max(stage.optimizer + stage.collectives["data"] + stage.host for stage in stages)
    work = tuple(stage.total for stage in stages for _ in range(each))
    step = Step(0, None, max(drawn.makespan + after, _shared(plan.setting, work)), work)
    priced = to_json(plan)
    peaks = tuple(float(priced["estimate"]["peak_memory_bytes"]) for _ in range(int(plan.degrees.world)))
    phases = mean_phases(stages, float(np.mean(drawn.idle)))
    found = {row["what"]: row for row in provenance(plan)}
    return Record(
        "simulated",
        priced,
        int(plan.degrees.world),
        (step,),
        phases,
        peaks,
        events=pipeline_events(drawn),
        provenance=found,
    )


def mean_phases(stages: Sequence[StagePhases], bubble: float) -> Phases:
    """The mean over the ranks of a pipeline; `bubble` [s] is the mean waiting."""
    names = stages[0].collectives
    count = len(stages)
    return Phases(
        forward=sum(stage.forward for stage in stages) / count,
        backward=sum(stage.backward for stage in stages) / count,
        optimizer=sum(stage.optimizer for stage in stages) / count,
        collectives={name: sum(stage.collectives[name] for stage in stages) / count for name in names},
        bubble=bubble,
    )


def _shared(setting: Setting, work: Sequence[float]) -> float:
    """The least wall time [s] of ranks that share cores: all their work over the cores; 0 where each has its own."""
    return sum(work) / setting.cluster.node.scale_up_domain if any(tier.lockstep for tier in setting.tiers) else 0.0


def _sum(counts: Sequence[int], times: Sequence[LayerTime]) -> LayerTime:
    total = {f.name: sum(n * getattr(t, f.name) for n, t in zip(counts, times, strict=True)) for f in fields(LayerTime)}
    return LayerTime(**total)


def _message(setting: Setting, degrees: Degrees) -> float:
    """Seconds of one activation to the next stage."""
    volume = setting.value * sharded_tokens(setting, degrees) * setting.model.boundary
    way = path(groups(degrees, setting.choices).pp, setting.tiers)
    return float(point_to_point(volume, way)) + setting.stack.message_gap * (int(degrees.pp) > 1)


def _messages(setting: Setting, degrees: Degrees, micro: int) -> float:
    """Seconds that the mean rank works on messages: a micro-batch crosses all boundaries of chunks, and comes back."""
    boundaries = int(degrees.pp) * int(degrees.vpp) - 1 if degrees.pp > 1 else 0
    overlap = 1.0 - setting.stack.pipeline_overlap
    return 2.0 * micro * boundaries / int(degrees.pp) * _message(setting, degrees) * overlap
