"""The proxy of a plan: the same training on a few ranks, small enough for this machine, and what it gave up.

What makes the plan what it is stays: which axes are above 1 (as far as the ranks allow, see `executor.axes`), the rank
order, the schedule and its share of bubble, recompute, ZeRO, and the kinds of layers in proportion. Sizes shrink.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from executor.axes import DENSE, EXPERT, Axis, axes, fold
from executor.shrink import Size, Table, shrink
from hwprofiles import load
from planner import schedules, stack
from planner.errors import Fault, InputError
from planner.estimate import estimate
from planner.families.table import model_of_table
from planner.layout import chain
from planner.model import Model
from planner.plan import Plan, strategy_json
from planner.rules import broken
from planner.setting import Setting, micro_batch_count
from planner.strategy import ORDERS, Choices, Degrees, Workload

HERE = {"cpu": ("cpu-loopback", "torch-eager")}
"""Cluster and stack that price what runs on a device of this machine; elsewhere those of the plan."""
MOST_MICRO_BATCHES = 8
MOST_MICRO_BATCH = 2
LEAST_HIDDEN = 16
DEEPEST = 4  # chunks of a rank


@dataclass(frozen=True)
class Proxy:
    """`plan` is legal and small; `table` is its model as the table of a TOML; `large` the plan it stands for."""

    plan: Plan
    table: Table
    large: Plan
    kept: tuple[str, ...]
    given_up: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Strategy, model and workload of both, and the sentences."""
        return {
            "large": _outline(self.large),
            "small": _outline(self.plan),
            "kept": list(self.kept),
            "given_up": list(self.given_up),
        }


@dataclass(frozen=True)
class Like:
    """An earlier proxy to go on with, on any layout: its model's table and its workload."""

    table: Table
    seq_len: int
    global_batch: int


def proxy(
    plan: Plan,
    ranks: int,
    *,
    device: str = "cpu",
    size: Size | None = None,
    memory: float | None = None,
    like: Like | None = None,
) -> Proxy:
    """The proxy of `plan` on `ranks` ranks of `device`; hidden halves until the peak fits `memory` [B per rank].

    `like` gives model and workload in place of `size`. Raises InputError when even the smallest does not fit, the
    model has a layer that can't be shrunk, or `like` is not legal on these ranks.
    """
    size = size or Size()
    degrees = fold(plan, ranks)
    while True:
        small, table = _small(plan, degrees, size, device, like)
        small.check()
        peak = float(estimate(small.setting, small.degrees).peak)
        if memory is None or peak <= memory:
            break
        if like or size.hidden // 2 < LEAST_HIDDEN:
            expected = f"the smallest proxy needs {peak:,.0f} B a rank; free memory or use fewer ranks"
            raise InputError(Fault("memory", expected, f"{memory:,.0f} B a rank"))
        size = replace(size, hidden=size.hidden // 2)
    return Proxy(small, table, plan, tuple(_kept(plan, small)), tuple(_given_up(plan, small)))


def _small(plan: Plan, degrees: Degrees, size: Size, device: str, like: Like | None) -> tuple[Plan, Table]:
    large = plan.setting
    dp, micro_batch = int(degrees.dp), min(int(plan.degrees.micro_batch), MOST_MICRO_BATCH)
    if like and like.global_batch % (dp * micro_batch):
        micro_batch = 1
    exact = like.global_batch // (dp * micro_batch) if like else None
    degrees, choices, micro_batches = _schedule(plan, degrees, exact)
    table = like.table if like else shrink(large.model, _fitted(size, degrees), large.workload.seq_len)
    seq_len = like.seq_len if like else _fitted(size, degrees).seq_len
    batch = like.global_batch if like else dp * micro_batch * micro_batches
    degrees = replace(degrees, micro_batch=micro_batch, replicas=_replicas(plan, degrees))
    steps = max(large.workload.tokens / large.workload.tokens_per_step, 1.0)
    workload = Workload(seq_len, batch, steps * seq_len * batch)
    cluster, framework = HERE.get(device, (plan.cluster_name, large.stack.name))
    choices = replace(
        choices,
        precision=_precision(large.choices.precision, device),
        optimizer=choices.optimizer.removesuffix("-bf16"),  # torch keeps the moments in the type of the weights
    )
    model = model_of_table(table, "proxy", table["name"])
    setting = Setting(model, load.cluster(cluster, int(degrees.world)), workload, choices, stack.load(framework))
    small = Plan(table["name"], cluster, setting, degrees)
    if any(fault.where == "strategy.order" for fault in broken(small.case)):
        small = replace(small, setting=replace(setting, choices=replace(choices, order=ORDERS[0])))
    return small, table


def _fitted(size: Size, degrees: Degrees) -> Size:
    """The size with what the degrees divide made divisible; one of two ways never changes the model."""
    cut = int(degrees.tp * degrees.cp)
    step = int(degrees.tp * (2 * degrees.cp if degrees.cp > 1 else 1))
    return replace(
        size,
        layers=max(size.layers, int(degrees.pp * degrees.vpp)),
        heads=math.lcm(size.heads, cut),
        seq_len=-(-size.seq_len // step) * step,
        cut=math.lcm(2, cut, int(degrees.etp)),
        ep=math.lcm(2, int(degrees.ep)),
    )


def _schedule(plan: Plan, degrees: Degrees, exact: int | None) -> tuple[Degrees, Choices, int]:
    """Schedule, chunks and micro-batches: the plan's where its rules allow, else 1F1B; the bubble's share stays.

    `exact` micro-batches when the batch is given.
    """
    choices, large = plan.setting.choices, plan.degrees
    count, pp = int(micro_batch_count(plan.setting, large)), int(degrees.pp)
    wanted = exact or min(count, 2)
    if exact is None and large.pp > 1 and pp > 1:
        share = round(count * (pp - 1) / (int(large.pp) - 1))
        wanted = min(max(share, pp), max(MOST_MICRO_BATCHES, pp))
    near = (wanted,) if exact else (*range(wanted, 0, -1), *range(wanted + 1, wanted + 2 * pp + 1))
    kind = schedules.get(choices.schedule)
    for vpp in range(min(int(large.vpp), 2), DEEPEST + 1):
        for micro_batches in near:
            if not kind.broken(pp, vpp, micro_batches):
                return replace(degrees, vpp=vpp), choices, micro_batches
    return degrees, replace(choices, schedule="1f1b"), wanted


def _replicas(plan: Plan, degrees: Degrees) -> int:
    """Hybrid shards stay hybrid where both the copies and the shards can be 2."""
    extents = [int(degrees.dp * degrees.cp)]
    if plan.setting.model.experts:
        extents.append(int(degrees.edp))
    return 2 if plan.degrees.replicas > 1 and all(extent % 2 == 0 for extent in extents) and extents[0] > 2 else 1


def _precision(large: str, device: str) -> str:
    """CPUs train in fp32, since most emulate the rest; fp8 and fp4 have no twins, so they become bf16."""
    if device == "cpu":
        return "fp32"
    return large if large in ("bf16", "fp32") else "bf16"


def _axes(large: Plan, small: Plan) -> list[tuple[Axis, int]]:
    """The axes that mean something for the model, each with its degree in the small plan."""
    names = (*DENSE, *EXPERT) if large.setting.model.experts else DENSE
    found = axes(large)
    return [(found[name], int(getattr(small.degrees, name))) for name in names]


def _kept(large: Plan, small: Plan) -> Iterator[str]:
    tiers = large.setting.tiers
    for axis, now in _axes(large, small):
        if now > 1 and axis.degree > 1:
            yield f"{axis.name} = {axis.degree} across the {tiers[axis.tier].name} -> {now}"
    c = small.setting.choices
    if c.schedule == large.setting.choices.schedule:
        chunks = f", vpp = {large.degrees.vpp} -> {small.degrees.vpp}" if large.degrees.vpp > 1 else ""
        yield f"schedule {c.schedule}{chunks}, {_batches(large)} -> {_batches(small)} micro-batches"
    yield f"recompute {c.recompute}, ZeRO {c.zero}, rank order {c.order}, optimizer {c.optimizer}"
    yield f"layers in order of depth: {_kinds(large.setting.model)} -> {_kinds(small.setting.model)}"
    if large.setting.model.experts:
        yield f"experts: {_experts(large.setting.model)} -> {_experts(small.setting.model)}"


def _given_up(large: Plan, small: Plan) -> Iterator[str]:
    a, b = large.setting, small.setting
    lost = [f"{axis.name} = {axis.degree}" for axis, now in _axes(large, small) if axis.degree > 1 and now == 1]
    if lost:
        yield f"{', '.join(lost)} -> 1: ranks are too few"
    for axis, now in _axes(large, small):
        if axis.degree == 1 and now > 1:
            yield f"{axis.name} = 1 -> {now}, so that all ranks have work"
    for name in ("schedule", "order", "precision", "optimizer"):
        before, now = getattr(a.choices, name), getattr(b.choices, name)
        if before != now:
            yield f"{name} {before} -> {now}"
    if large.degrees.replicas > 1 and small.degrees.replicas == 1:
        yield f"hybrid shards: {large.degrees.replicas} copies -> 1"
    yield f"parameters {a.model.total_parameters():,} -> {b.model.total_parameters():,}"
    yield f"hidden {a.model.hidden:,} -> {b.model.hidden}, vocabulary {a.model.vocab:,} -> {b.model.vocab} (bytes)"
    yield f"sequence {a.workload.seq_len:,} -> {b.workload.seq_len} tokens"
    yield f"global batch {a.workload.global_batch:,} -> {b.workload.global_batch} sequences"
    if a.model.mtp_layers > b.model.mtp_layers:
        yield f"prediction modules {a.model.mtp_layers} -> {b.model.mtp_layers}"
    crossed = {axis.tier for axis, _ in _axes(large, small) if axis.degree > 1}
    if len(crossed) > len(b.tiers):
        yield f"network tiers {', '.join(tier.name for tier in a.tiers)} -> {', '.join(tier.name for tier in b.tiers)}"


def _batches(plan: Plan) -> int:
    return int(micro_batch_count(plan.setting, plan.degrees))


def _kinds(model: Model) -> str:
    counts = Counter(model.kinds[kind].name for kind in model.order)
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _experts(model: Model) -> str:
    return f"top {model.topk} of {model.experts}"


def _outline(plan: Plan) -> dict[str, Any]:
    model, workload = plan.setting.model, plan.setting.workload
    return {
        "model": {
            "name": model.name,
            "parameters": model.total_parameters(),
            "hidden": model.hidden,
            "layers": model.layers,
            "chain": len(chain(model)),
            "experts": model.experts,
            "topk": model.topk,
        },
        "cluster": plan.cluster_name,
        "workload": {"seq_len": workload.seq_len, "global_batch": workload.global_batch},
        "strategy": strategy_json(plan.setting, plan.degrees),
    }
