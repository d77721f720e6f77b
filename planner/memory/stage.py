"""Peak memory of a pipeline stage, by what holds it, and the peak over the stages."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import reduce

import numpy as np

from planner import schedules
from planner.formula import Count, Num, formula
from planner.layers.base import Cut, Linear
from planner.layout import layer_kinds
from planner.memory.activations import activation_gradients, layer_activations
from planner.memory.teacher import teacher_bytes, teacher_logits
from planner.precision import BF16, FP32
from planner.setting import Setting, micro_batch_count, sharded_tokens, tokens
from planner.sharding import MASK, Held, linear_rows, sparse_copies, stage_held, state_bytes
from planner.strategy import Degrees


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank of a stage; the sum of the fields is the peak.

    parameters, gradients, optimizer: states after sharding, and what the update needs if that is the fullest moment;
    activations: of all micro-batches in flight; logits: what the loss holds of them; communication: parameters that
    ZeRO-3 has gathered; workspace: a layer at work beyond what the loss takes at another moment (gathered and exchanged
    tokens, what recompute makes again, a weight gradient on its way); framework: context, libraries, allocator slack;
    teacher: the model that is distilled from, on the student's ranks.
    """

    parameters: Num
    gradients: Num
    optimizer: Num
    activations: Num
    logits: Num
    communication: Num
    workspace: Num
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

    `held` parameters, `saved` bytes per micro-batch, bytes of its `work` in the backward pass (gradients
    of an activation, what recompute makes again), `logits` bytes.
    """

    held: Held
    saved: Num
    work: Num
    logits: Num


@formula(unit="B", source="Korthikanti 2022 and the parts of the layer")
def layer_bytes(kind: int, held: Held, setting: Setting, degrees: Degrees) -> LayerBytes:
    """Memory of column `kind` of the layout."""
    layer = layer_kinds(setting.model)[kind]
    is_layer = kind < len(setting.model.kinds) or kind > len(setting.model.kinds) + 1
    whole = layer_activations(layer, setting, degrees, "none")
    again = is_layer and setting.choices.recompute != "none"
    saved = layer_activations(layer, setting, degrees, setting.choices.recompute) if again else whole
    stack = setting.stack
    each = np.where(degrees.tp > 1, stack.cut_logit_bytes or stack.logit_bytes, stack.logit_bytes)
    work = activation_gradients(layer, setting, degrees)
    logits: Num = 0.0
    for part in layer.parts:
        if isinstance(part, Linear) and part.name == "output":
            ways = degrees.tp if part.cut is Cut.COLUMN else 1
            rows = linear_rows(part, setting, degrees) if part.rows else tokens(setting, degrees)
            logits = logits + each * rows * (part.outputs / ways)
    return LayerBytes(held, saved, work + (whole - saved if again else 0.0), logits)


@dataclass(frozen=True)
class Common:
    """What all stages of a pipeline share: bytes of `gathered` parameters and of one layer at `work`, `micro_batches`,
    over how many ranks ZeRO shards a dense and an expert parameter, and bytes of the `teacher`.
    """

    gathered: Num
    work: Num
    micro_batches: Count
    dense_ways: Num
    expert_ways: Num
    teacher: Num = 0.0


def common(costs: tuple[LayerBytes, ...], setting: Setting, degrees: Degrees) -> Common:
    """The part of the memory that does not depend on the stage."""
    work: Num = reduce(np.maximum, [cost.work for cost in costs])
    return Common(
        _gathered(costs, setting),
        _buffers(setting, degrees) + work + _rounded(costs, setting) + weight_gradient(setting, degrees),
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


@formula(unit="B", source="without fusion a weight's gradient is a tensor of its own before it is added to the sum")
def weight_gradient(setting: Setting, degrees: Degrees) -> Num:
    """Bytes of the gradient of the largest matrix of the layers, of one expert where it is an expert's."""
    if not setting.stack.unfused_gradient:
        return 0.0
    sizes = [
        part.inputs * part.outputs / (1 if part.cut is Cut.NONE else degrees.etp if part.expert else degrees.tp)
        for layer in setting.model.kinds
        for part in layer.parts
        if isinstance(part, Linear)
    ]
    largest: Num = reduce(np.maximum, sizes)
    return largest * setting.stack.unfused_gradient


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
    """Memory of the stage at position `rank` that holds `counts` layers of each kind, at its fullest moment.

    `flying`: of each kind, layers times micro-batches in flight; None: as many of all as the schedule holds.
    """
    has = stage_held(tuple(cost.held for cost in costs), counts, setting.model, degrees)
    head = len(setting.model.kinds) + 1
    predictions = counts[head] + (counts[head + 1] if len(counts) > head + 1 else 0)
    logits: Num = predictions * costs[head].logits
    parameters, gradients, optimizer = _states(has, shared, setting, degrees)
    if flying is None:
        schedule = schedules.get(setting.choices.schedule)
        held: Num = schedule.in_flight(degrees.pp, degrees.vpp, shared.micro_batches, rank)
        activations = held * _saved(counts, costs)
    else:
        activations = _saved(flying, costs)
    workspace = np.maximum(shared.work - logits, 0.0)  # the fullest moment is the loss or a layer at work
    if setting.stack.update_bytes:
        held = activations + logits + workspace + shared.gathered
        needed = (has.dense / shared.dense_ways + has.expert / shared.expert_ways) * setting.stack.update_bytes
        optimizer = optimizer + np.maximum(needed - held, 0.0)
    taught = shared.teacher + teacher_logits(setting, degrees, counts[head])
    terms = (parameters, gradients, optimizer, activations, logits, shared.gathered, workspace)
    allocated: Num = sum(terms) + taught
    framework = setting.gpu.reserve + setting.stack.libraries + (setting.stack.allocator - 1.0) * allocated
    return Memory(*terms, framework, taught)


def _saved(layers: tuple[Num | Count, ...], costs: tuple[LayerBytes, ...]) -> Num:
    """Saved bytes of so many layers of each kind."""
    saved: Num = sum(n * cost.saved for n, cost in zip(layers, costs, strict=True))
    return saved


def _states(has: Held, shared: Common, setting: Setting, degrees: Degrees) -> tuple[Num, Num, Num]:
    """Bytes of parameters, gradients and optimizer state after ZeRO."""
    zero, stack = setting.choices.zero, setting.stack
    sharded: Num = has.dense / shared.dense_ways + has.expert / shared.expert_ways
    whole: Num = has.dense + has.expert
    if has.matrices is None:
        states = (sharded if zero >= 1 else whole) * (setting.optimizer.elementwise.state + setting.master)
    else:
        dense, expert = state_bytes(has, has.matrices, setting)
        states = dense / shared.dense_ways + expert / shared.expert_ways if zero >= 1 else dense + expert
    parameters = (sharded if zero >= 3 else whole) * setting.weight + beside(has, setting)
    gradients = (sharded if zero >= 2 else whole) * (stack.held_gradient or stack.gradient_bytes)
    if zero >= 3 and stack.keeps_gathered:
        kept = (whole - sharded) * (degrees.pp > 1)
        parameters, gradients = parameters + kept * setting.value, gradients + kept * FP32
    return parameters, gradients, states


@formula(
    unit="B", source="2:4: both compressed orientations of a weight (Mishra 2021; torchao sparsify24); else its mask"
)
def beside(has: Held, setting: Setting) -> Num:
    """Bytes that pruning keeps beside the weights, on every rank that computes with them; 0 without it."""
    method = setting.pruning
    if has.compressed is None or not (method.sparse or method.masked):
        return 0.0
    return has.compressed.skipped * sparse_copies(setting) + MASK * method.masked * has.compressed.applied


def _buffers(setting: Setting, degrees: Degrees) -> Num:
    """Gathered tokens of tp, exchanged tokens of ep, sends of pp."""
    hidden, model = setting.model.hidden, setting.model
    rows = tokens(setting, degrees)
    gathered = 2.0 * setting.value * rows * hidden * (degrees.tp > 1)
    exchanged = 4.0 * setting.value * (rows / degrees.tp) * max(model.topk, 1) * hidden * (degrees.ep * degrees.etp > 1)
    sends = 4.0 * setting.value * sharded_tokens(setting, degrees) * model.boundary * (degrees.pp > 1)
    total: Num = gathered + exchanged + sends
    return total


def _gathered(costs: tuple[LayerBytes, ...], setting: Setting) -> Num:
    """The two layers whose parameters ZeRO-3 has gathered, and the gradients of one; 0 without it."""
    if setting.choices.zero < 3:
        return 0.0
    unit: Num = reduce(np.maximum, [cost.held.dense + cost.held.expert for cost in costs])
    return unit * (2.0 * setting.value + FP32)
