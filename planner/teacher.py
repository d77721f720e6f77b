"""The teacher of a distillation: a second model that runs forward only, beside the student or on GPUs of its own.

Beside the student it shares its tp, pp and cp; its experts are spread over as many of a stage's ranks as divide them.
Weights stay in the base type; ZeRO-3 shards the dense ones over data parallelism, as it does the student's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from planner.formula import Count, Num
from planner.model import Layer, Model
from planner.setting import Setting
from planner.strategy import Degrees

INDEX = 4.0  # bytes of a place in the vocabulary
PLAIN = {"fp32": "fp32"}  # base types other than bf16, and the precision that multiplies everything in them


def taught(setting: Setting, teacher: Model) -> Setting:
    """The setting that prices the teacher's forward pass: its model, nothing recomputed, compressed or distilled."""
    choices = replace(
        setting.choices,
        precision=PLAIN.get(setting.precision.base, "bf16"),
        recompute="none",
        prune="none",
        quantize="none",
        distill_from="none",
        teacher_gpus=0,
        optimizer="sgd-plain",
    )
    return replace(setting, model=teacher, choices=choices, teacher=None)


def teacher_degrees(setting: Setting, degrees: Degrees) -> Degrees:
    """How the teacher is cut: the degrees of its own ranks, or the student's with experts spread over a stage."""
    teacher = setting.teacher
    if teacher is None or teacher.degrees is not None:
        return degrees if teacher is None or teacher.degrees is None else teacher.degrees
    ranks = np.asarray(degrees.world) // np.asarray(degrees.pp)
    spread = np.gcd(max(teacher.model.experts, 1), ranks)
    return replace(degrees, vpp=1, replicas=1, etp=1, ep=spread if spread.ndim else int(spread))


def layers_of(model: Model) -> list[tuple[Layer, int]]:
    """Each kind of layer with its number; without prediction modules, which a teacher does not run."""
    counts = Counter(model.order)
    return [*((model.kinds[kind], n) for kind, n in sorted(counts.items())), (model.embedding, 1), (model.head, 1)]


def token_bytes(setting: Setting, ways: Count = 1) -> Num:
    """Bytes of the teacher's logits of one token on one of `ways` ranks of tp: all of them in the base type, cut by tp,
    or the largest alone, each with its place in the vocabulary (four bytes), whole on every rank.
    """
    if setting.teacher is None:
        return 0.0
    few = setting.choices.teacher_topk
    return few * (setting.value + INDEX) if few else setting.value * (setting.teacher.model.vocab / ways)


def logits_bytes(setting: Setting, degrees: Degrees, rows: Num) -> Num:
    """Bytes of the teacher's logits of `rows` tokens on a rank of the student's last stage."""
    return rows * token_bytes(setting, degrees.tp)
