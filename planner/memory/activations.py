"""Bytes that one micro-batch leaves on a rank for the backward pass, by layer and recompute choice.

Source: Korthikanti 2022 (activation counts, selective recompute); each part states what it saves.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from planner.formula import Num, formula
from planner.layers.base import Core, Cut, Linear, Part, Pointwise
from planner.model import Layer
from planner.precision import FP32, LOW_PRECISION
from planner.recompute import dropped, dropped_input
from planner.setting import Setting, sharded_tokens, tokens
from planner.sharding import linear_rows, pointwise_rows
from planner.strategy import Degrees

UNFUSED_SCORES = 5.0  # bytes per score: softmax output, dropout mask and dropout output (Korthikanti 2022)


@formula(unit="B", source="Korthikanti 2022, extended to MLA and experts; the expert output is not kept")
def layer_activations(layer: Layer, setting: Setting, degrees: Degrees, recompute: str) -> Num:
    """Saved bytes of one micro-batch in one layer on one rank under `recompute` (none, selective or full)."""
    if recompute == "full":
        return _entering(layer, setting, degrees)
    selective = recompute == "selective"
    if selective and setting.stack.kept_outputs:
        return _entering(layer, setting, degrees) + kept_outputs(layer, setting, degrees)
    if selective and "matmuls" in setting.stack.recomputed:
        return _entering(layer, setting, degrees) + every_second(layer, setting, degrees)
    total: Num = 0.0
    for part in layer.parts:
        total = total + part_activations(part, setting, degrees, selective=selective)
    return total


def _entering(layer: Layer, setting: Setting, degrees: Degrees) -> Num:
    """Bytes of what enters a layer."""
    image = layer.entering()
    if image:
        return degrees.micro_batch * (setting.value * image)
    kept: Num = setting.value * sharded_tokens(setting, degrees) * setting.model.hidden
    return kept


@formula(unit="B", source="torchtitan's op mode (pytorch/torchtitan@9dec370, _save_list): outputs of compute operators")
def every_second(layer: Layer, setting: Setting, degrees: Degrees) -> Num:
    """Bytes of the outputs of a layer's first, third, fifth … matrix multiply and of its fused attention product.

    Queries, keys and values come of three multiplies, the two inputs of a gated activation of two.
    """
    total: Num = 0.0
    seen = 0
    core = next((part for part in layer.parts if isinstance(part, Core)), None)
    for part in layer.parts:
        if isinstance(part, Core):
            rows = tokens(setting, degrees) / degrees.tp
            total = total + (setting.value * part.heads * part.v_dim + FP32 * part.heads) * rows
        if not isinstance(part, Linear):
            continue
        for width in _outputs(part, core):
            seen += 1
            if seen % 2:
                total = total + setting.value * width * part.active * _output_rows(part, setting, degrees)
    return total


@formula(unit="B", source="jax.checkpoint policies: named outputs of matrix multiplies stay, all else is made again")
def kept_outputs(layer: Layer, setting: Setting, degrees: Degrees) -> Num:
    """Bytes of the outputs of the matrices that the stack names."""
    total: Num = 0.0
    for part in layer.parts:
        if isinstance(part, Linear) and part.name in setting.stack.kept_outputs:
            total = total + setting.value * part.outputs * part.active * _output_rows(part, setting, degrees)
    return total


def _outputs(part: Linear, core: Core | None) -> tuple[int, ...]:
    """Widths of the outputs of the multiplies that stand for one matrix."""
    if part.name == "qkv" and core is not None:
        keys = core.kv_heads * core.qk_dim if core.own_kv else 0
        return tuple(
            width for width in (core.heads * core.qk_dim, keys, part.outputs - core.heads * core.qk_dim - keys)
        )
    if part.name in ("up", "shared_up", "experts_up"):
        return (part.outputs // 2, part.outputs // 2)
    return (part.outputs,)


def _output_rows(part: Linear, setting: Setting, degrees: Degrees) -> Num:
    """Tokens of a matrix's output on one rank, a width cut by tp counted as fewer."""
    return tokens(setting, degrees) / degrees.tp if part.cut is Cut.COLUMN else sharded_tokens(setting, degrees)


def part_activations(part: Part, setting: Setting, degrees: Degrees, *, selective: bool) -> Num:
    """Saved bytes of one micro-batch in one part on one rank, without recompute or with the selective one."""
    modules = setting.stack.recomputed if selective else ()
    if isinstance(part, Linear):
        return 0.0 if not part.saves or dropped_input(part, modules) else _input(part, setting, degrees)
    if isinstance(part, Core):
        return _core(part, setting, degrees, modules)
    if isinstance(part, Pointwise) and not dropped(part, modules):
        gated = part.saved > 1 and part.name.endswith("activation")
        tensors = part.saved + (gated and not setting.stack.fused_pointwise)
        return setting.value * tensors * part.width * pointwise_rows(part, setting, degrees)
    return 0.0


@formula(unit="B", source="backward pass of an activation: the gradients of its output and its inputs exist at once")
def activation_gradients(layer: Layer, setting: Setting, degrees: Degrees) -> Num:
    """Bytes of gradients at the widest activation of a layer, which is at work while everything kept still stands."""
    each: list[Num] = [
        setting.value * (part.saved + 1) * part.width * pointwise_rows(part, setting, degrees)
        for part in layer.parts
        if isinstance(part, Pointwise) and part.saved and part.name.endswith("activation")
    ]
    return reduce(np.maximum, each) if each else 0.0


def _input(part: Linear, setting: Setting, degrees: Degrees) -> Num:
    """Bytes of the input kept for the weight gradient."""
    low = part.label in LOW_PRECISION
    each = setting.precision.saved if low else setting.value
    if part.expert:
        spread = degrees.etp if part.cut is Cut.COLUMN else 1
        return each * part.inputs * part.active * (tokens(setting, degrees) / degrees.tp * spread)
    if part.rows:
        kept = each * (part.inputs * part.density) * linear_rows(part, setting, degrees)
        return kept / degrees.tp if part.cut is Cut.ROW else kept
    if part.cut is Cut.ROW:
        return each * part.inputs * (tokens(setting, degrees) / degrees.tp)
    return each * part.inputs * sharded_tokens(setting, degrees)


def _core(part: Core, setting: Setting, degrees: Degrees, modules: tuple[str, ...]) -> Num:
    """Query, key, value and the row statistics; without a fused kernel the scores too.

    The output is the input of the output matrix, unless that keeps it in fewer bits: then both stay.
    """
    rows = tokens(setting, degrees) / degrees.tp
    widths = part.heads * part.qk_dim + part.own_kv * part.kv_heads * (part.qk_dim + part.v_dim)
    total: Num = FP32 * part.heads * rows
    if not (part.rebuilt and "mla_up_proj" in modules):
        total = total + setting.value * widths * rows
    if setting.precision.saved < setting.value and not part.linear:
        total = total + setting.value * part.heads * part.v_dim * rows
    if not setting.stack.flash_attention and "core_attn" not in modules:
        total = total + UNFUSED_SCORES * part.heads * setting.workload.seq_len * rows
    return total
