"""Time that a distillation adds to a step: the teacher's forward pass, its logits, and the loss between both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np

from planner.collectives.base import Group, path
from planner.collectives.point_to_point import point_to_point
from planner.collectives.ring import all_gather
from planner.cost import kernels
from planner.cost.groups import groups
from planner.cost.layer import layer_time
from planner.cost.overlap import exposed
from planner.divisibility import divisors, widths
from planner.formula import Num, formula
from planner.model import Model
from planner.setting import Setting, Teacher, micro_batch_count, tokens
from planner.sharding import held
from planner.strategy import Degrees
from planner.teacher import layers_of, logits_bytes, taught, teacher_degrees, token_bytes

LOSS_PASSES = 4.0  # both logits read, the gradient written, the teacher's softmax read again
ROOM = 0.8  # share of a teacher GPU's memory that weights may take
WIDEST_BATCH = 8  # sequences of a micro-batch on teacher GPUs


@formula(unit="s", source="Hinton 2015, arXiv:1503.02531: a forward pass of the teacher for every batch of the student")
def distill_time(setting: Setting, degrees: Degrees, step: Num) -> Num:
    """Time added to a step of `step` [s] without a teacher; 0 where none teaches."""
    teacher = setting.teacher
    if teacher is None:
        return 0.0
    rows = tokens(setting, degrees)
    micro_batches = micro_batch_count(setting, degrees)
    volume = LOSS_PASSES * logits_bytes(setting, degrees, rows)
    loss = micro_batches * kernels.traffic(volume, setting.gpu)
    if teacher.degrees is None:
        return loss + forward_time(setting, teacher.model, teacher_degrees(setting, degrees))
    ahead = forward_time(setting, teacher.model, teacher.degrees)
    cycle: Num = np.maximum(step, ahead)  # both work at once; logits travel beside the slower of them
    return loss + (cycle - step) + exposed(sending_time(setting, degrees), cycle, setting.stack.pipeline_overlap)


@formula(unit="s", source="micro-batches through the mean stage of the teacher, and the filling of its pipeline")
def forward_time(setting: Setting, teacher: Model, degrees: Degrees) -> Num:
    """Forward pass over one step's tokens on the ranks of `degrees`; ZeRO-3 gathers the teacher's dense weights."""
    where = taught(setting, teacher)
    stage: Num = 0.0
    dense: Num = 0.0
    for layer, count in layers_of(teacher):
        stage = stage + count * layer_time(layer, where, degrees).ahead
        dense = dense + count * held(layer, degrees).dense
    stage, dense = stage / degrees.pp, dense / degrees.pp
    if setting.choices.zero == 3:
        gathered: Num = all_gather(dense * setting.value, path(groups(degrees, where.choices).data, setting.tiers))
        stage = stage + gathered
    return (micro_batch_count(where, degrees) + degrees.pp - 1) * stage


@formula(
    unit="s", source="logits of every token, whole or the largest, from last stage to last stage across the fabric"
)
def sending_time(setting: Setting, degrees: Degrees) -> Num:
    """One step's logits through the network cards of the side with fewer of them."""
    teacher = setting.teacher
    if teacher is None or teacher.degrees is None:
        return 0.0
    return np.maximum(_through_last(setting, teacher.degrees), _through_last(setting, degrees))


def _through_last(setting: Setting, degrees: Degrees) -> Num:
    """One step's logits through the network cards of the last stage of `degrees`."""
    total = setting.workload.tokens_per_step * token_bytes(setting)
    way = path(Group(2, setting.cluster.gpus // 2), setting.tiers)
    return point_to_point(total * (degrees.pp / degrees.world), way)


def own_degrees(setting: Setting, teacher: Model, gpus: int) -> Degrees | None:
    """The cut of `gpus` GPUs that runs `teacher` forward and sends its logits the fastest; None where none holds it."""
    where = replace(setting, choices=replace(setting.choices, zero=0), teacher=Teacher(teacher))

    def slower(degrees: Degrees) -> float:
        return max(float(forward_time(where, teacher, degrees)), float(_through_last(where, degrees)))

    options = [degrees for degrees in _options(where, teacher, gpus) if _fits(where, teacher, degrees)]
    return min(options, key=slower, default=None)


def _options(setting: Setting, teacher: Model, gpus: int) -> Iterator[Degrees]:
    """Cuts by tp inside a scale-up domain and by pp, experts over a whole stage, batches that the replicas divide."""
    work, domain = setting.workload, setting.tiers[0].size
    cuts = [tp for tp in divisors(teacher.heads) if tp <= domain and work.seq_len % tp == 0]
    cuts = [tp for tp in cuts if widths(teacher, expert=False) % tp == 0]
    stages = [pp for pp in divisors(gpus) if pp <= teacher.layers]
    for tp, pp, micro_batch in product(cuts, stages, (1, 2, 4, WIDEST_BATCH)):
        if gpus % (tp * pp) or work.global_batch % (gpus // (tp * pp) * micro_batch):
            continue
        base = Degrees(gpus, tp=tp, pp=pp, micro_batch=micro_batch)
        spread = [ep for ep in divisors(teacher.experts) if gpus // pp % ep == 0] if teacher.experts else [1]
        yield replace(base, ep=max(spread))


def _fits(setting: Setting, teacher: Model, degrees: Degrees) -> bool:
    """Whether the weights of a mean stage leave room on its GPUs."""
    has = [(held(layer, degrees), count) for layer, count in layers_of(teacher)]
    weights = sum(float(each.dense + each.expert) * count for each, count in has) / int(degrees.pp)
    return weights * setting.value <= ROOM * setting.gpu.hbm_capacity
