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
from planner.precision import FP32
from planner.setting import Setting, micro_batch_count, sharded_tokens, tokens
from planner.sharding import Held, linear_rows, stage_held
from planner.strategy import Degrees

LOGIT_FUSED = 6.0  # bytes per logit: bf16 logits and fp32 softmax in place
LOGIT_PLAIN = 12.0  # fp32 logits, softmax and gradient at once


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank of a stage; the sum of the fields is the peak.

    parameters, gradients, optimizer: states after sharding; activations: of all micro-batches in flight; logits: output
    of the last stage; communication: gathered and exchanged tensors; framework: context, libraries, allocator slack.
    """

    parameters: Num
    gradients: Num
    optimizer: Num
    activations: Num
    logits: Num
    communication: Num
    framework: Num

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
    and over how many ranks ZeRO shards a dense and an expert parameter.
    """

    communication: Num
    working: Num
    micro_batches: Count
    dense_ways: Num
    expert_ways: Num


def common(costs: tuple[LayerBytes, ...], setting: Setting, degrees: Degrees) -> Common:
    """The part of the memory that does not depend on the stage."""
    whole: Num = reduce(np.maximum, [cost.whole for cost in costs])
    return Common(
        _buffers(costs, setting, degrees),
        whole if setting.choices.recompute == "full" else 0.0,
        micro_batch_count(setting, degrees),
        degrees.dp * degrees.cp / degrees.replicas,
        degrees.edp / degrees.replicas,
    )


@formula(unit="B", source="Rajbhandari 2020 (ZeRO states); Narayanan 2021 (micro-batches in flight)")
def stage_memory(
    costs: tuple[LayerBytes, ...],
    counts: tuple[Count, ...],
    rank: Count,
    shared: Common,
    setting: Setting,
    degrees: Degrees,
) -> Memory:
    """Memory of the stage at position `rank` that holds `counts` layers of each kind."""
    has = stage_held(tuple(cost.held for cost in costs), counts, setting.model, degrees)
    saved: Num = sum(n * cost.saved for n, cost in zip(counts, costs, strict=True))
    head = len(setting.model.kinds) + 1
    logits: Num = counts[head] * costs[head].logits
    schedule = schedules.get(setting.choices.schedule)
    flying = schedule.in_flight(degrees.pp, degrees.vpp, shared.micro_batches, rank)
    states = _states(has.dense, has.expert, shared, setting)
    activations = flying * saved + shared.working
    allocated: Num = sum(states) + activations + logits + shared.communication
    framework = setting.gpu.reserve + (setting.stack.allocator - 1.0) * allocated
    return Memory(*states, activations, logits, shared.communication, framework)


def _states(dense: Num, expert: Num, shared: Common, setting: Setting) -> tuple[Num, Num, Num]:
    """Bytes of parameters, gradients and optimizer state after ZeRO."""
    zero, precision = setting.choices.zero, setting.precision
    sharded: Num = dense / shared.dense_ways + expert / shared.expert_ways
    whole: Num = dense + expert
    return (
        (sharded if zero >= 3 else whole) * setting.weight,
        (sharded if zero >= 2 else whole) * setting.stack.gradient_bytes,
        (sharded if zero >= 1 else whole) * (setting.optimizer.state - (0.0 if precision.master else FP32)),
    )


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
