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
from planner import schedules
from planner.errors import Fault
from planner.layers.base import Convolution, Cut, Linear
from planner.layout import chain
from planner.model import Model
from planner.strategy import ORDERS, Choices, Degrees, Workload


@dataclass(frozen=True)
class Case:
    """A strategy (or a batch) in its surroundings."""

    model: Model
    cluster: Cluster
    workload: Workload
    choices: Choices
    d: Degrees


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


def nearest_divisor(total: int, value: int) -> int:
    """The divisor of `total` closest to `value` (the smaller of two equally close)."""
    return min(divisors(total), key=lambda candidate: (abs(candidate - value), candidate))


def divisors(total: int) -> list[int]:
    """All divisors, ascending."""
    low = [candidate for candidate in range(1, int(total**0.5) + 1) if total % candidate == 0]
    return sorted({*low, *(total // candidate for candidate in low)})


def widths(model: Model, *, expert: bool) -> int:
    """The greatest number that divides every width that tp (or etp for experts) cuts; the vocabulary is padded."""
    found = [
        part.outputs if part.cut is Cut.COLUMN else part.inputs
        for layer in (*model.kinds, *((model.mtp,) if model.mtp else ()))
        for part in layer.parts
        if isinstance(part, Linear) and part.expert is expert and part.cut is not Cut.NONE
    ]
    return int(np.gcd.reduce(found)) if found else 0


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


def whole_sequences(model: Model) -> bool:
    """Whether something works on whole sequences: a classifier, a convolution."""
    return any(layer.sequence_flops() for layer in model.stack())


def convolutional(model: Model) -> bool:
    """Whether its layers are convolutions."""
    return any(isinstance(part, Convolution) for kind in model.kinds for part in kind.parts)


def _kv(c: Case) -> Any:
    groups = c.model.kv_heads
    if groups == 0:
        return c.d.tp >= 1
    return (groups % c.d.tp == 0) | (c.d.tp % groups == 0)


def _chunks(c: Case) -> Any:
    return c.d.pp * c.d.vpp <= len(chain(c.model))


def _micro_batches(c: Case) -> Any:
    return c.workload.global_batch // np.maximum(c.d.dp * c.d.micro_batch, 1)


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

STRUCTURE = (WORLD, HEADS, KV_HEADS, WIDTHS, WHOLE, CONVOLUTIONS, SEQUENCE, FORMAT, SEQUENCE_PARALLEL)
FOLD = (EXPERTS, EXPERT_WIDTHS, FOLDING, ORDER)
REST = (BATCH, LAYERS, REPLICAS)


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
