"""Time of one training step, by what it is spent on. Exposed time only: what overlaps is not counted twice."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import TypeVar

import numpy as np

from planner import schedules
from planner.collectives.base import path
from planner.collectives.point_to_point import point_to_point
from planner.collectives.ring import all_gather
from planner.cost.data_parallel import data_time, optimizer_time, sharding_time, split_time
from planner.cost.groups import groups
from planner.cost.layer import LayerTime
from planner.cost.teacher import distill_time
from planner.formula import Count, Num, formula
from planner.layout import Layout
from planner.schedules.base import Schedule
from planner.setting import Setting, micro_batch_count, tokens
from planner.sharding import Compressed, Held, Matrices, stage_held
from planner.strategy import Degrees

T = TypeVar("T", Matrices, Compressed)
ROUNDING = 1e-9  # equal stages differ by the last bits of their sums


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step; the sum of the fields is the step.

    compute, launch (gaps that the host leaves between kernels), recompute, tensor, context, expert: the mean stage's
    work over all micro-batches; imbalance: what the slowest stage adds; bubble: filling and draining the pipeline;
    pipeline: exposed sends between stages; data: exposed gradient and parameter traffic; optimizer; host: work of the
    framework once per step; stragglers: waiting for the slowest rank; teacher: what a distillation adds.
    """

    compute: Num
    launch: Num
    recompute: Num
    tensor: Num
    context: Num
    expert: Num
    pipeline: Num
    imbalance: Num
    bubble: Num
    data: Num
    optimizer: Num
    host: Num
    stragglers: Num
    teacher: Num = 0.0

    @property
    def total(self) -> Num:
        """The step time [s]."""
        total: Num = sum(getattr(self, f.name) for f in fields(self))
        return total


@dataclass(frozen=True)
class LayerCost:
    """What a layer of one kind costs a rank: its time per micro-batch and the parameters it holds."""

    time: LayerTime
    held: Held


@formula(
    unit="s",
    source="Narayanan 2021 eq. 1-2: micro-batches of the slowest stage, fill and drain of the others, exposed sends",
)
def step_time(costs: tuple[LayerCost, ...], layout: Layout, setting: Setting, degrees: Degrees) -> StepTime:
    """The step of a pipeline whose stages hold `layout` layers of each kind of `costs`."""
    schedule = schedules.get(setting.choices.schedule)
    micro_batches = micro_batch_count(setting, degrees)
    mean = mean_stage(costs, layout, degrees)
    slowest = reduce(np.maximum, [stage_total(costs, counts) for counts in layout.counts])
    waiting: Num = slowest - mean.total
    waiting = waiting * (waiting > ROUNDING * slowest)
    others = 1.0 - waiting / (np.maximum(degrees.pp - 1, 1) * mean.total)
    forward, backward = mean.ahead, mean.behind
    largest = largest_stage(costs, layout, setting, degrees)
    passes = degrees.vpp * (2.0 + schedule.splits_backward)
    layers: Num = reduce(np.maximum, [sum(counts) * 1.0 for counts in layout.counts])
    alone = StepTime(
        compute=micro_batches * (mean.forward + mean.backward),
        launch=micro_batches * (mean.launch_forward + mean.launch_backward + passes * setting.stack.pass_gap)
        + sum(sharding_time(largest, layers, setting, degrees, micro_batches))
        + split_time(largest, setting, micro_batches) * schedule.splits_backward,
        recompute=micro_batches * mean.recompute,
        tensor=micro_batches * mean.tensor,
        context=micro_batches * mean.context,
        expert=micro_batches * mean.expert,
        pipeline=pipeline_time(schedule, micro_batches, setting, degrees),
        imbalance=micro_batches * waiting,
        bubble=schedule.bubble(degrees.pp, degrees.vpp, micro_batches, others * forward, others * backward),
        data=data_time(largest, layers, setting, degrees, (micro_batches, forward, backward)),
        optimizer=optimizer_time(largest, setting, degrees),
        host=setting.stack.step_overhead + rank_waits(setting, degrees),
        stragglers=micro_batches
        * (mean.forward + mean.backward)
        * (setting.stack.jitter * np.log(np.maximum(degrees.world / 8.0, 1.0))),
    )
    if setting.teacher is None:
        return alone
    return replace(alone, teacher=distill_time(setting, degrees, alone.total))


@formula(unit="s", source="the host's work per broadcast, one from each rank that holds a shard of the states")
def rank_waits(setting: Setting, degrees: Degrees) -> Num:
    """What a stack loses where updated parameters are broadcast rank by rank, once per step."""
    return setting.stack.rank_gap * (degrees.dp * degrees.cp / degrees.replicas) * (setting.choices.zero == 1)


@formula(unit="s", source="layers of each kind on the stage times the time of one")
def stage_total(costs: tuple[LayerCost, ...], counts: tuple[Count, ...]) -> Num:
    """Time of one micro-batch on a stage."""
    total: Num = sum(count * cost.time.total for count, cost in zip(counts, costs, strict=True))
    return total


@formula(unit="s", source="all layers of the model over pp stages")
def mean_stage(costs: tuple[LayerCost, ...], layout: Layout, degrees: Degrees) -> LayerTime:
    """Time of one micro-batch on the mean stage, by what it is spent on."""
    total: list[Num] = [0.0] * len(fields(LayerTime))
    for kind, cost in enumerate(costs):
        share = layout.total[kind] / degrees.pp
        for index, field in enumerate(fields(LayerTime)):
            total[index] = total[index] + share * getattr(cost.time, field.name)
    return LayerTime(*total)


def largest_stage(costs: tuple[LayerCost, ...], layout: Layout, setting: Setting, degrees: Degrees) -> Held:
    """The most dense and expert parameters, tensors and matrices that a stage holds per rank."""
    each = tuple(cost.held for cost in costs)
    stages = [stage_held(each, counts, setting.model, degrees) for counts in layout.counts]
    dense: Num = reduce(np.maximum, [stage.dense for stage in stages])
    expert: Num = reduce(np.maximum, [stage.expert for stage in stages])
    tensors: Num = reduce(np.maximum, [stage.tensors for stage in stages])
    whole = [stage.matrices for stage in stages if stage.matrices is not None]
    small = [stage.compressed for stage in stages if stage.compressed is not None]
    return Held(dense, expert, tensors, _most(whole), _most(small))


def _most(each: list[T]) -> T | None:
    """The largest of each field; None of nothing."""
    if not each:
        return None
    kind = type(each[0])
    return kind(**{f.name: reduce(np.maximum, [getattr(one, f.name) for one in each]) for f in fields(kind)})


@formula(unit="s", source="Narayanan 2021 sec. 3.3.1: activations of one micro-batch to the next stage, gradients back")
def pipeline_time(schedule: Schedule, micro_batches: Count, setting: Setting, degrees: Degrees) -> Num:
    """Exposed sends of a stage in one step."""
    axes, whole = groups(degrees, setting.choices), setting.value * tokens(setting, degrees) * setting.model.boundary
    sequence_parallel = setting.choices.sequence_parallel
    part = whole / degrees.tp if sequence_parallel or setting.stack.scattered_sends else whole
    one = point_to_point(part, path(axes.pp, setting.tiers))
    if setting.stack.scattered_sends and not sequence_parallel:
        one = one + all_gather(whole, path(axes.tp, setting.tiers))
    sends = schedule.sends(degrees.pp, degrees.vpp, micro_batches)
    total: Num = (
        2.0 * sends * (one + setting.stack.message_gap * (degrees.pp > 1)) * (1.0 - setting.stack.pipeline_overlap)
    )
    return total
