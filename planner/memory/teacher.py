"""Bytes of the teacher on a rank of the student: its weights, one layer at work, its logits beside the student's."""

from __future__ import annotations

from functools import reduce

import numpy as np

from planner.formula import Count, Num, formula
from planner.memory.activations import layer_activations
from planner.setting import Setting, tokens
from planner.sharding import held
from planner.strategy import Degrees
from planner.teacher import layers_of, logits_bytes, taught, teacher_degrees


@formula(
    unit="B", source="weights in the base type over tp, pp and the experts' ranks; ZeRO-3: dense ones over dp · cp"
)
def teacher_bytes(setting: Setting, degrees: Degrees) -> Num:
    """Weights of a mean stage of the teacher and the tensors of its largest layer; 0 on ranks that do not hold it."""
    teacher = setting.teacher
    if teacher is None or teacher.degrees is not None:
        return 0.0
    where, cut = taught(setting, teacher.model), teacher_degrees(setting, degrees)
    dense: Num = 0.0
    expert: Num = 0.0
    unit: Num = 0.0
    for layer, count in layers_of(teacher.model):
        has = held(layer, cut)
        dense, expert = dense + count * has.dense, expert + count * has.expert
        unit = np.maximum(unit, has.dense)
    sharded = setting.choices.zero == 3
    weights = dense / degrees.pp / (degrees.dp * degrees.cp if sharded else 1) + expert / degrees.pp + sharded * unit
    kinds = [layer_activations(layer, where, cut, "none") for layer in teacher.model.kinds]
    working: Num = reduce(np.maximum, kinds)
    return weights * setting.value + working


def teacher_logits(setting: Setting, degrees: Degrees, heads: Count) -> Num:
    """The teacher's logits of one micro-batch on stages that hold an output matrix; 0 without a teacher."""
    if setting.teacher is None:
        return 0.0
    return heads * logits_bytes(setting, degrees, tokens(setting, degrees))
