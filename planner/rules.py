"""What makes a strategy legal: one table. The same row masks a sweep, counts what it dropped, and words the error.

Each row holds or not for numbers or arrays alike; its message is a template over `c` (the case) that also names the
nearest legal value where there is one. The cost formulas see legal candidates only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwprofiles.spec import Cluster
from planner import compression, schedules
from planner.divisibility import convolutional, nearest_divisor, whole_sequences, widths
from planner.errors import Fault
from planner.layout import chain
from planner.model import Model
from planner.precision import PRECISIONS
from planner.strategy import ORDERS, Choices, Degrees, Workload


@dataclass(frozen=True)
class Case:
    """A strategy (or a batch) in its surroundings; `teacher` is the model that runs on the same ranks, if any."""

    model: Model
    cluster: Cluster
    workload: Workload
    choices: Choices
    d: Degrees
    teacher: Model | None = None


@dataclass(frozen=True)
class Rule:
    """One demand: `name`, whether it holds, the sentence, and the axis and total of which a divisor is wanted."""

    name: str
    holds: Callable[[Case], Any]
    message: Callable[[Case], str]
    axis: str = ""
    total: Callable[[Case], int] | None = None

    def fault(self, case: Case) -> Fault:
        """The sentence for one plan, with the nearest legal value."""
        near = None
        if self.total is not None:
            value = nearest_divisor(self.total(case), int(getattr(case.d, self.axis)))
            helps = bool(self.holds(replace(case, d=replace(case.d, **{self.axis: value}))))
            near = f"{self.axis} = {value}" if helps else None
        return Fault(f"strategy.{self.name}", self.message(case), nearest=near)


def _divides(value: Any, total: int) -> Any:
    return total % value == 0


def _order(c: Case) -> Any:
    if c.choices.order == ORDERS[0]:
        return c.d.pp >= 1
    inside = (c.d.ep * c.d.etp == c.d.tp * c.d.cp) if c.model.experts else c.d.ep >= 1
    return (c.d.pp > 1) & inside


def _sequence(c: Case) -> Any:
    by_tp = c.d.tp if c.choices.sequence_parallel and not convolutional(c.model) else 1
    by_cp = 1 if whole_sequences(c.model) else np.where(c.d.cp > 1, 2 * c.d.cp, 1)
    return c.workload.seq_len % (by_cp * by_tp * (c.d.tp >= 1)) == 0


def _kv(c: Case) -> Any:
    groups = c.model.kv_heads
    if groups == 0:
        return c.d.tp >= 1
    return (groups % c.d.tp == 0) | (c.d.tp % groups == 0)


def _chunks(c: Case) -> Any:
    return c.d.pp * c.d.vpp <= len(chain(c.model))


def _micro_batches(c: Case) -> Any:
    return c.workload.global_batch // np.maximum(c.d.dp * c.d.micro_batch, 1)


def _prunes(c: Case) -> compression.Compression:
    return compression.get(c.choices.prune, "prune", "--prune")


def _teaches(c: Case) -> Any:
    if c.teacher is None:
        return c.d.tp >= 1
    cut = _divides(c.d.tp, c.teacher.heads) & _divides(c.d.tp, widths(c.teacher, expert=False))
    return cut & _kv(replace(c, model=c.teacher)) & (c.d.pp <= len(chain(c.teacher)))


def _ramps(c: Case) -> Any:
    held: Any = c.d.tp >= 1
    rows = schedules.get(c.choices.schedule).legal if c.workload.ramp else ()
    for stage in c.workload.ramp:
        here = replace(c, workload=replace(c.workload, global_batch=stage.global_batch, ramp=()))
        held = held & BATCH.holds(here)
        for row in rows:
            held = held & row.holds(c.d.pp, c.d.vpp, _micro_batches(here))
    return held


def _schedule(row: schedules.base.Requirement) -> Rule:
    return Rule(
        f"schedule_{row.name}",
        lambda c: row.holds(c.d.pp, c.d.vpp, _micro_batches(c)),
        lambda c: f"{c.choices.schedule}: {row.explain(int(c.d.pp), int(c.d.vpp), int(_micro_batches(c)))}",
    )


WORLD = Rule(
    "world",
    lambda c: c.d.world % (c.d.tp * c.d.pp * c.d.cp) == 0,
    lambda c: f"tp · pp · cp = {c.d.tp * c.d.pp * c.d.cp} must divide the {c.d.world} GPUs",
    "tp",
    lambda c: max(int(c.d.world // (c.d.pp * c.d.cp)), 1),
)
HEADS = Rule(
    "heads",
    lambda c: _divides(c.d.tp, c.model.heads),
    lambda c: f"tp = {c.d.tp} must divide the {c.model.heads} attention heads",
    "tp",
    lambda c: c.model.heads,
)
KV_HEADS = Rule(
    "kv_heads",
    _kv,
    lambda c: f"tp = {c.d.tp} must divide the {c.model.kv_heads} key-value heads, or be a multiple of them",
    "tp",
    lambda c: c.model.kv_heads,
)
WIDTHS = Rule(
    "widths",
    lambda c: _divides(c.d.tp, widths(c.model, expert=False)),
    lambda c: f"tp = {c.d.tp} must divide every dense width (common divisor {widths(c.model, expert=False)})",
    "tp",
    lambda c: widths(c.model, expert=False),
)
SEQUENCE = Rule(
    "sequence",
    _sequence,
    lambda c: (
        f"seq_len = {c.workload.seq_len} must be a multiple of tp · 2 cp (tp = {c.d.tp}, cp = {c.d.cp}; 1 for cp = 1,"
        " and for tp without sequence parallelism)"
    ),
    "cp",
    lambda c: max(c.workload.seq_len // (2 * int(c.d.tp)), 1),
)
LAYERS = Rule(
    "layers",
    _chunks,
    lambda c: f"pp · vpp = {c.d.pp * c.d.vpp} chunks exceed the {len(chain(c.model))} layers, embedding and head",
)
EXPERTS = Rule(
    "experts",
    lambda c: _divides(c.d.ep, c.model.experts) if c.model.experts else c.d.ep == 1,
    lambda c: (
        f"ep = {c.d.ep} must divide the {c.model.experts} experts" if c.model.experts else "a dense model has ep = 1"
    ),
    "ep",
    lambda c: max(c.model.experts, 1),
)
EXPERT_WIDTHS = Rule(
    "expert_widths",
    lambda c: _divides(c.d.etp, widths(c.model, expert=True)) if c.model.experts else c.d.etp == 1,
    lambda c: f"etp = {c.d.etp} must divide the expert width {widths(c.model, expert=True)} (1 for a dense model)",
    "etp",
    lambda c: max(widths(c.model, expert=True), 1),
)
FOLDING = Rule(
    "folding",
    lambda c: (c.d.world // c.d.pp) % (c.d.ep * c.d.etp) == 0,
    lambda c: f"ep · etp = {c.d.ep * c.d.etp} must divide tp · cp · dp = {c.d.world // c.d.pp}",
    "ep",
    lambda c: max(int(c.d.world // c.d.pp // c.d.etp), 1),
)
BATCH = Rule(
    "batch",
    lambda c: c.workload.global_batch % np.maximum(c.d.dp * c.d.micro_batch, 1) == 0,
    lambda c: f"dp · micro_batch = {c.d.dp * c.d.micro_batch} must divide the global batch {c.workload.global_batch}",
    "micro_batch",
    lambda c: max(c.workload.global_batch // max(int(c.d.dp), 1), 1),
)
REPLICAS = Rule(
    "replicas",
    lambda c: (
        ((c.d.dp * c.d.cp) % c.d.replicas == 0)
        & ((c.d.edp % c.d.replicas == 0) | (c.model.experts == 0))
        & ((c.d.replicas == 1) | (c.choices.zero > 0))
    ),
    lambda c: (
        f"replicas = {c.d.replicas} must divide dp · cp = {c.d.dp * c.d.cp} and edp = {c.d.edp}, and be 1 without ZeRO"
    ),
)
ORDER = Rule(
    "order",
    _order,
    lambda c: f"rank order {c.choices.order} needs pp > 1 and ep · etp = tp · cp",
)
WHOLE = Rule(
    "whole_sequences",
    lambda c: (c.d.cp == 1) | (not whole_sequences(c.model)),
    lambda c: f"cp = {c.d.cp} must be 1: {c.model.name} works on whole sequences, which cp would cut",
    "cp",
    lambda c: 1,
)
CONVOLUTIONS = Rule(
    "convolutions",
    lambda c: (c.d.tp == 1) | (not convolutional(c.model)),
    lambda c: f"tp = {c.d.tp} must be 1: the convolutions of {c.model.name} are not cut",
    "tp",
    lambda c: 1,
)
SEQUENCE_PARALLEL = Rule(
    "sequence_parallel",
    lambda c: (c.d.tp == 1) | c.choices.sequence_parallel | (c.model.experts == 0),
    lambda c: f"experts with tp = {c.d.tp} need sequence parallelism",
)
FORMAT = Rule(
    "format",
    lambda c: (c.d.tp >= 1) & (c.choices.precision in c.cluster.gpu.matmul),
    lambda c: (
        f"{c.cluster.gpu.name} has no {c.choices.precision} matrix units (it has {', '.join(c.cluster.gpu.matmul)})"
    ),
)

SPARSE = Rule(
    "sparse",
    lambda c: (c.d.tp >= 1) & (not _prunes(c).sparse or PRECISIONS[c.choices.precision].peak in c.cluster.gpu.sparse),
    lambda c: (
        f"{c.cluster.gpu.name} has no sparse matrix units for {c.choices.precision}, which {c.choices.prune} needs"
    ),
)
QUANTIZED = Rule(
    "quantize",
    lambda c: (c.d.tp >= 1) & (c.choices.quantize != "fp8" or PRECISIONS[c.choices.precision].peak == "fp8"),
    lambda c: f"quantizing to fp8 needs an fp8 precision, not {c.choices.precision}",
)
LEAN = Rule(
    "messages",
    lambda c: (c.d.tp >= 1) & (c.choices.messages == "base" or PRECISIONS[c.choices.precision].peak == "fp8"),
    lambda c: f"fp8 messages need an fp8 precision, not {c.choices.precision}",
)
MASTER = Rule(
    "master",
    lambda c: (c.d.tp >= 1) & (c.choices.master == "fp32" or PRECISIONS[c.choices.precision].master),
    lambda c: f"weights in {c.choices.precision} are their own master copy; {c.choices.master} would be coarser",
)
TEACHER = Rule(
    "teacher",
    _teaches,
    lambda c: (
        f"the teacher runs on the same ranks: tp = {c.d.tp} must divide its heads and widths, pp = {c.d.pp} be at most "
        "its layers (or give it GPUs of its own)"
    ),
)
RAMP = Rule(
    "ramp",
    _ramps,
    lambda c: (
        f"each batch of the ramp-up must be a multiple of dp · micro_batch = {c.d.dp * c.d.micro_batch}, with as many "
        f"micro-batches as {c.choices.schedule} needs"
    ),
)


METHODS = (SPARSE, QUANTIZED, LEAN, MASTER, TEACHER)
STRUCTURE = (WORLD, HEADS, KV_HEADS, WIDTHS, WHOLE, CONVOLUTIONS, SEQUENCE, FORMAT, SEQUENCE_PARALLEL, *METHODS)
FOLD = (EXPERTS, EXPERT_WIDTHS, FOLDING, ORDER)
REST = (BATCH, LAYERS, REPLICAS, RAMP)


def rules(choices: Choices) -> tuple[Rule, ...]:
    """All rows that apply to a strategy with these choices, its schedule's own requirements last."""
    return (*STRUCTURE, *FOLD, *REST, *(_schedule(row) for row in schedules.get(choices.schedule).legal))


def broken(case: Case) -> list[Fault]:
    """Every fault of one strategy (ints), empty when it is legal. Values below 1 are faults of their own."""
    small = [
        Fault(f"strategy.{axis}", "must be at least 1", value)
        for axis, value in vars(case.d).items()
        if not isinstance(value, int) or value < 1
    ]
    return small or [rule.fault(case) for rule in rules(case.choices) if not bool(np.all(rule.holds(case)))]
