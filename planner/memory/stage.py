"""Peak memory of a pipeline stage, by what holds it, and the peak over the stages."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import reduce

import numpy as np

from planner import schedules
from planner.formula import Count, Num, formula
from planner.layers.base import Cut, Linear
from planner.layout import layer_kinds
from planner.memory.activations import layer_activations
from planner.memory.teacher import teacher_bytes, teacher_logits
from planner.precision import BF16, FP32
from planner.setting import Setting, micro_batch_count, sharded_tokens, tokens
from planner.sharding import MASK, Held, linear_rows, sparse_copies, stage_held, state_bytes
from planner.strategy import Degrees

LOGIT_FUSED = 6.0  # bytes per logit: bf16 logits and fp32 softmax in place
LOGIT_PLAIN = 12.0  # fp32 logits, softmax and gradient at once


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank of a stage; the sum of the fields is the peak.

    parameters, gradients, optimizer: states after sharding; activations: of all micro-batches in flight; logits: output
    of the last stage; communication: gathered and exchanged tensors; framework: context, libraries, allocator slack;
    teacher: the model that is distilled from, on the student's ranks.
    """

    parameters: Num
    gradients: Num
    optimizer: Num
    activations: Num
    logits: Num
    communication: Num
    framework: Num
    teacher: Num = 0.0

    @property
    def total(self) -> Num:
        """Peak bytes of the stage."""
        total: Num = sum(getattr(self, f.name) for f in fields(self))
        return total


@dataclass(frozen=True)
class LayerBytes:
    """What a layer of one kind asks of a rank's memory.

    `held` parameters, `saved` bytes per micro-batch, `whole` bytes of one layer without recompute, `logits` bytes.
    """

    held: Held
    saved: Num
    whole: Num
    logits: Num


@formula(unit="B", source="Korthikanti 2022 and the parts of the layer")
def layer_bytes(kind: int, held: Held, setting: Setting, degrees: Degrees) -> LayerBytes:
    """Memory of column `kind` of the layout."""
    layer = layer_kinds(setting.model)[kind]
    recompute = setting.choices.recompute
    is_layer = kind < len(setting.model.kinds) or kind > len(setting.model.kinds) + 1
    saved = layer_activations(layer, setting, degrees, recompute if is_layer else "none")
    whole = layer_activations(layer, setting, degrees, "none") if is_layer else 0.0
    per_logit = LOGIT_FUSED if setting.stack.fused_loss else LOGIT_PLAIN
    logits: Num = 0.0
    for part in layer.parts:
        if isinstance(part, Linear) and part.name == "output":
            ways = degrees.tp if part.cut is Cut.COLUMN else 1
            rows = linear_rows(part, setting, degrees) if part.rows else tokens(setting, degrees)
            logits = logits + per_logit * rows * (part.outputs / ways)
    return LayerBytes(held, saved, whole, logits)


@dataclass(frozen=True)
class Common:
    """What all stages of a pipeline share: bytes of `communication`, the recompute `working` set, `micro_batches`,
    over how many ranks ZeRO shards a dense and an expert parameter, and bytes of the `teacher`.
    """

    communication: Num
    working: Num
    micro_batches: Count
    dense_ways: Num
    expert_ways: Num
    teacher: Num = 0.0


def common(costs: tuple[LayerBytes, ...], setting: Setting, degrees: Degrees) -> Common:
    """The part of the memory that does not depend on the stage."""
    whole: Num = reduce(np.maximum, [cost.whole for cost in costs])
    return Common(
        _buffers(costs, setting, degrees),
        (whole if setting.choices.recompute == "full" else 0.0) + _rounded(costs, setting),
        micro_batch_count(setting, degrees),
        degrees.dp * degrees.cp / degrees.replicas,
        degrees.edp / degrees.replicas,
        teacher_bytes(setting, degrees),
    )


def _rounded(costs: tuple[LayerBytes, ...], setting: Setting) -> Num:
    """The fake-quantized weights of the layer at work, the largest one; 0 without quantization-aware training."""
    if not setting.quantizing.recast:
        return 0.0
    small = [cost.held.compressed.applied for cost in costs if cost.held.compressed is not None]
    largest: Num = reduce(np.maximum, small)
    return largest * BF16


@formula(unit="B", source="Rajbhandari 2020 (ZeRO states); Narayanan 2021 (micro-batches in flight)")
def stage_memory(
    costs: tuple[LayerBytes, ...],
    counts: tuple[Count, ...],
    rank: Count,
    shared: Common,
    setting: Setting,
    degrees: Degrees,
    flying: tuple[Num, ...] | None = None,
) -> Memory:
    """Memory of the stage at position `rank` that holds `counts` layers of each kind.

    `flying`: of each kind, layers times micro-batches in flight; None: as many of all as the schedule holds.
    """
    has = stage_held(tuple(cost.held for cost in costs), counts, setting.model, degrees)
    head = len(setting.model.kinds) + 1
    logits: Num = counts[head] * costs[head].logits
    states = _states(has, shared, setting)
    taught = shared.teacher + teacher_logits(setting, degrees, counts[head])
    activations = _saved(costs, counts, rank, shared, setting, degrees) if flying is None else _dot(flying, costs)
    activations = activations + shared.working
    allocated: Num = sum(states) + activations + logits + shared.communication + taught
    framework = setting.gpu.reserve + (setting.stack.allocator - 1.0) * allocated
    return Memory(*states, activations, logits, shared.communication, framework, taught)


def _saved(
    costs: tuple[LayerBytes, ...],
    counts: tuple[Count, ...],
    rank: Count,
    shared: Common,
    setting: Setting,
    degrees: Degrees,
) -> Num:
    """Activations of the micro-batches that the schedule has in flight on the stage."""
    flying = schedules.get(setting.choices.schedule).in_flight(degrees.pp, degrees.vpp, shared.micro_batches, rank)
    return flying * _dot(counts, costs)


def _dot(layers: tuple[Num, ...], costs: tuple[LayerBytes, ...]) -> Num:
    """Saved bytes of so many layers of each kind."""
    saved: Num = sum(n * cost.saved for n, cost in zip(layers, costs, strict=True))
    return saved


def _states(has: Held, shared: Common, setting: Setting) -> tuple[Num, Num, Num]:
    """Bytes of parameters, gradients and optimizer state after ZeRO."""
    zero = setting.choices.zero
    sharded: Num = has.dense / shared.dense_ways + has.expert / shared.expert_ways
    whole: Num = has.dense + has.expert
    if has.matrices is None:
        states = (sharded if zero >= 1 else whole) * (setting.optimizer.elementwise.state + setting.master)
    else:
        dense, expert = state_bytes(has, has.matrices, setting)
        states = dense / shared.dense_ways + expert / shared.expert_ways if zero >= 1 else dense + expert
    return (
        (sharded if zero >= 3 else whole) * setting.weight + beside(has, setting),
        (sharded if zero >= 2 else whole) * setting.stack.gradient_bytes,
        states,
    )


@formula(
    unit="B", source="2:4: both compressed orientations of a weight (Mishra 2021; torchao sparsify24); else its mask"
)
def beside(has: Held, setting: Setting) -> Num:
    """Bytes that pruning keeps beside the weights, on every rank that computes with them; 0 without it."""
    method = setting.pruning
    if has.compressed is None or not (method.sparse or method.masked):
        return 0.0
    return has.compressed.skipped * sparse_copies(setting) + MASK * method.masked * has.compressed.applied


def _buffers(costs: tuple[LayerBytes, ...], setting: Setting, degrees: Degrees) -> Num:
    """Gathered tokens of tp, exchanged tokens of ep, sends of pp, and the two layers that ZeRO-3 has gathered."""
    hidden, model = setting.model.hidden, setting.model
    rows = tokens(setting, degrees)
    gathered = 2.0 * setting.value * rows * hidden * (degrees.tp > 1)
    exchanged = 4.0 * setting.value * (rows / degrees.tp) * max(model.topk, 1) * hidden * (degrees.ep * degrees.etp > 1)
    sends = 4.0 * setting.value * sharded_tokens(setting, degrees) * model.boundary * (degrees.pp > 1)
    total: Num = gathered + exchanged + sends
    if setting.choices.zero >= 3:
        unit: Num = reduce(np.maximum, [cost.held.dense + cost.held.expert for cost in costs])
        total = total + unit * (2.0 * setting.value + FP32)
    return total
