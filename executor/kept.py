"""What a proxy kept of its plan and what it gave up, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from executor.axes import DENSE, EXPERT, Axis, axes
from planner.model import Model
from planner.plan import Plan
from planner.setting import micro_batch_count

COMPARED = ("schedule", "order", "precision", "optimizer", "master", "prune", "quantize", "messages", "distill_from")


def kept(large: Plan, small: Plan) -> Iterator[str]:
    """Sentences on what is as in the plan, sizes aside."""
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


def given_up(large: Plan, small: Plan) -> Iterator[str]:
    """Sentences on what is not as in the plan."""
    a, b = large.setting, small.setting
    lost = [f"{axis.name} = {axis.degree}" for axis, now in _axes(large, small) if axis.degree > 1 and now == 1]
    if lost:
        yield f"{', '.join(lost)} -> 1: ranks are too few"
    for axis, now in _axes(large, small):
        if axis.degree == 1 and now > 1:
            yield f"{axis.name} = 1 -> {now}, so that all ranks have work"
    for name in COMPARED:
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


def _axes(large: Plan, small: Plan) -> list[tuple[Axis, int]]:
    """The axes that mean something for the model, each with its degree in the small plan."""
    names = (*DENSE, *EXPERT) if large.setting.model.experts else DENSE
    found = axes(large)
    return [(found[name], int(getattr(small.degrees, name))) for name in names]
