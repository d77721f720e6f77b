"""The training methods of a plan resolved: what prunes the model, what teaches it, and what does not go together."""

from __future__ import annotations

from planner import compression
from planner.cost.teacher import own_degrees
from planner.errors import Fault, InputError
from planner.model import Model
from planner.setting import Setting, Teacher
from planner.strategy import Choices


def check(choices: Choices, gpus: int) -> None:
    """Raise InputError with everything in the choices that names no method, or needs another choice."""
    faults: list[Fault] = []
    for kind in ("prune", "quantize"):
        try:
            compression.get(getattr(choices, kind), kind, f"--{kind}")
        except InputError as error:
            faults += error.faults
    for name in ("teacher_gpus", "teacher_topk"):
        if getattr(choices, name) and choices.distill_from == "none":
            where = f"--{name.replace('_', '-')}"
            faults.append(Fault(where, "only with --distill-from", getattr(choices, name)))
    if choices.teacher_gpus >= gpus:
        faults.append(Fault("--teacher-gpus", f"must leave GPUs to the student, of {gpus:,}", choices.teacher_gpus))
    if faults:
        raise InputError(*faults)


def pruned(model: Model, choices: Choices) -> Model:
    """The model that is trained: without the experts that are pruned."""
    return compression.get(choices.prune, "prune", "--prune").changed(model)


def placed(setting: Setting, teacher: Model) -> Teacher:
    """The teacher beside the student, or on its own GPUs in the fastest cut that holds it; InputError without one."""
    gpus, few = setting.choices.teacher_gpus, setting.choices.teacher_topk
    if few > teacher.vocab:
        expected = f"{teacher.name} has {teacher.vocab:,} logits a token"
        raise InputError(Fault("--teacher-topk", expected, few))
    if not gpus:
        return Teacher(teacher)
    degrees = own_degrees(setting, teacher, gpus)
    if degrees is None:
        expected = f"no cut of {teacher.name} fits so many GPUs and divides the batch; more, or a power of two"
        raise InputError(Fault("--teacher-gpus", expected, gpus))
    return Teacher(teacher, degrees)
