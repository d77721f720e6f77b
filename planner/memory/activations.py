"""Bytes that one micro-batch leaves on a rank for the backward pass, by layer and recompute choice.

Source: Korthikanti 2022 (activation counts, selective recompute); each part states what it saves.
"""

from __future__ import annotations

from planner.formula import Num, formula
from planner.layers.base import Core, Cut, Linear, Part, Pointwise
from planner.model import Layer
from planner.precision import FP32, LOW_PRECISION
from planner.setting import Setting, sharded_tokens, tokens
from planner.sharding import linear_rows, pointwise_rows
from planner.strategy import Degrees

UNFUSED_SCORES = 5.0  # bytes per score: softmax output, dropout mask and dropout output (Korthikanti 2022)


@formula(unit="B", source="Korthikanti 2022, extended to MLA and experts; the expert output is not kept")
def layer_activations(layer: Layer, setting: Setting, degrees: Degrees, recompute: str) -> Num:
    """Saved bytes of one micro-batch in one layer on one rank under `recompute` (none, selective or full)."""
    if recompute == "full":
        image = layer.entering()
        if image:
            return degrees.micro_batch * (setting.value * image)
        kept: Num = setting.value * sharded_tokens(setting, degrees) * setting.model.hidden
        return kept
    selective = recompute == "selective"
    total: Num = 0.0
    for part in layer.parts:
        total = total + part_activations(part, setting, degrees, selective=selective)
    return total


def part_activations(part: Part, setting: Setting, degrees: Degrees, *, selective: bool) -> Num:
    """Saved bytes of one micro-batch in one part on one rank, without recompute or with the selective one."""
    if isinstance(part, Linear):
        return 0.0 if not part.saves or (selective and part.cheap_input) else _input(part, setting, degrees)
    if isinstance(part, Core):
        return _core(part, setting, degrees, selective=selective)
    if isinstance(part, Pointwise):
        return setting.value * part.saved * part.width * pointwise_rows(part, setting, degrees)
    return 0.0


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


def _core(part: Core, setting: Setting, degrees: Degrees, *, selective: bool) -> Num:
    """Query, key, value and the row statistics; without a fused kernel the scores too."""
    rows = tokens(setting, degrees) / degrees.tp
    widths = part.heads * part.qk_dim + part.own_kv * part.kv_heads * (part.qk_dim + part.v_dim)
    total: Num = FP32 * part.heads * rows
    if not (selective and part.rebuilt):
        total = total + setting.value * widths * rows
    if not setting.stack.flash_attention and not selective:
        total = total + UNFUSED_SCORES * part.heads * setting.workload.seq_len * rows
    return total
