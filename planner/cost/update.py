"""The update of a rank's parameters: bytes, FLOP, and what an optimizer of whole matrices asks beside them."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from planner.collectives.base import Group, path
from planner.collectives.ring import all_gather
from planner.cost import kernels
from planner.cost.groups import groups
from planner.formula import Num, formula
from planner.layers.base import Cut, Linear, Part, Table
from planner.model import Layer
from planner.optimizers.base import newton_schulz_flops
from planner.setting import Setting
from planner.sharding import MASK, Held, Matrices, sparse_copies
from planner.strategy import Degrees

BUCKET = 40e6  # parameters; Megatron-LM's default for one call, of gradients at least 1e6 per data-parallel rank
ENDS = 2.0  # of a shard, at each of which it may cut through a matrix


@formula(unit="parameters", source="Shazeer and Stern 2018 (means of rows and columns); Liu 2025 (whole matrices)")
def matrices(layer: Layer, setting: Setting, degrees: Degrees) -> Matrices:
    """What a rank holds of the matrices of `layer` that the optimizer updates as a whole."""
    rule = setting.optimizer.matrix
    total: dict[str, Num] = {f.name: 0.0 for f in fields(Matrices)}
    for part in layer.parts:
        if rule is None or not covered(part, tables=rule.tables):
            continue
        kind = "expert" if isinstance(part, Linear) and part.expert else "dense"
        each, edges, whole, copies = _piece(part, degrees)
        seconds = orthogonal_time(part, rule.iterations, setting) if isinstance(part, Linear) else 0.0
        total[kind] = total[kind] + each * copies
        total[f"{kind}_edges"] = total[f"{kind}_edges"] + edges * copies
        total[f"{kind}_whole"] = total[f"{kind}_whole"] + whole * copies
        total[f"{kind}_work"] = total[f"{kind}_work"] + seconds * copies
        total[f"{kind}_largest"] = np.maximum(total[f"{kind}_largest"], seconds)
        total[f"{kind}_piece_largest"] = np.maximum(total[f"{kind}_piece_largest"], each)
    return Matrices(**total)


def covered(part: Part, *, tables: bool) -> bool:
    """Whether the optimizer treats `part` as a matrix: tables and the output matrix only with `tables`."""
    if isinstance(part, Table):
        return tables
    return isinstance(part, Linear) and (tables or part.label != "head")


def _piece(part: Part, degrees: Degrees) -> tuple[Num, Num, float, Num]:
    """Parameters and edges of a rank's piece of one copy, parameters of the whole, and copies on the rank."""
    if isinstance(part, Table):
        ways = degrees.tp if part.cut is Cut.COLUMN else 1
        return part.rows * part.width / ways, part.rows / ways + part.width, 1.0 * part.rows * part.width, 1.0
    if not isinstance(part, Linear):
        return 0.0, 0.0, 0.0, 0.0
    ways = 1 if part.cut is Cut.NONE else degrees.etp if part.expert else degrees.tp
    long = part.outputs if part.cut is Cut.ROW else part.inputs
    cut = part.inputs if part.cut is Cut.ROW else part.outputs
    whole = 1.0 * part.inputs * part.outputs
    return whole / ways, long + cut / ways, whole, part.copies / degrees.ep if part.expert else 1.0


@formula(unit="s", source="Jordan 2024: X Xᵀ, its square, their product with X, in each of the iterations")
def orthogonal_time(part: Linear, iterations: int, setting: Setting) -> float:
    """Newton-Schulz of one whole matrix on one rank, in the base type; 0 for an optimizer that needs none."""
    if not iterations:
        return 0.0
    m, n = float(min(part.inputs, part.outputs)), float(max(part.inputs, part.outputs))
    gpu, base = setting.gpu, setting.precision.base
    peak, curve, value = gpu.peak[base] * setting.sustained, gpu.matmul[base], setting.value
    gram = kernels.matmul(m, m, n, value * (2.0 * m * n + m * m), peak, curve, gpu)
    square = kernels.matmul(m, m, m, value * 3.0 * m * m, peak, curve, gpu)
    product = kernels.matmul(m, n, m, value * (m * m + 2.0 * m * n), peak, curve, gpu)
    return float(iterations * (gram + square + product))


@formula(
    unit="s",
    source="Liu 2025 (arXiv:2502.16982, section 2.3): bf16 over tp and over the ZeRO shards, at most all matrices once",
)
def matrix_gather_time(has: Matrices, setting: Setting, degrees: Degrees) -> Num:
    """Exposed gathers that make shards whole: over tp or etp what a rank updates, over data what its shard cuts.

    A shard is a run of the stage's matrices end to end, so that it cuts through two of them at most.
    """
    rule, axes = setting.optimizer.matrix, groups(degrees, setting.choices)
    if rule is None or not rule.iterations:
        return 0.0
    total: Num = 0.0
    shards = shares(setting, degrees)
    for size, piece, whole, ways, cut, data in (
        (has.dense, has.dense_piece_largest, has.dense_whole, shards[0], axes.tp, axes.data),
        (has.expert, has.expert_piece_largest, has.expert_whole, shards[1], axes.etp, axes.expert_data),
    ):
        total = total + _gather(whole / ways, cut, setting) * (cut.size > 1)
        if setting.choices.zero:
            crossed = np.minimum(size, ENDS * piece)
            total = total + _gather(crossed, Group(ways, data.stride), setting) * (ways > 1)
    return total


def _gather(size: Num, group: Group, setting: Setting) -> Num:
    """An all-gather of `size` parameters in the base type, in buckets; nothing where there is none."""
    calls = np.maximum(size / BUCKET, 1.0)
    return calls * all_gather(size * setting.value / calls, path(group, setting.tiers)) * (size > 0)


def shares(setting: Setting, degrees: Degrees) -> tuple[Num, Num]:
    """Over how many ranks ZeRO deals the update of a dense and of an expert parameter."""
    if setting.choices.zero == 0:
        return 1.0, 1.0
    return degrees.dp * degrees.cp / degrees.replicas, degrees.edp / degrees.replicas


@formula(unit="s", source="matrices are dealt out whole: the busiest rank has the mean share, and at least the largest")
def orthogonalize_time(has: Matrices, setting: Setting, degrees: Degrees) -> Num:
    """Newton-Schulz of a rank's matrices in one step; ranks of tp do the same work."""
    dense, expert = shares(setting, degrees)
    total: Num = np.maximum(has.dense_work / dense, has.dense_largest)
    return total + np.maximum(has.expert_work / expert, has.expert_largest)


@formula(unit="B", source="gradient, states and weights of each parameter, as its optimizer reads and writes them")
def moved_bytes(stage: Held, setting: Setting, degrees: Degrees) -> Num:
    """Bytes that the update of a rank's own parameters moves through memory in one step."""
    dense_ways, expert_ways = shares(setting, degrees)
    has, rule = stage.matrices, setting.optimizer.matrix
    each = setting.optimizer.elementwise.traffic(setting.weight_traffic)
    if has is None or rule is None:
        owned = (
            stage.dense / dense_ways + stage.expert / expert_ways
            if setting.choices.zero
            else stage.dense + stage.expert
        )
        return owned * each
    whole = rule.traffic(setting.weight_traffic)
    dense = (stage.dense - has.dense) * each + has.dense * whole + 2.0 * rule.edges * has.dense_edges
    expert = (stage.expert - has.expert) * each + has.expert * whole + 2.0 * rule.edges * has.expert_edges
    return dense / dense_ways + expert / expert_ways


def update_flops(layer: Layer, setting: Setting) -> float:
    """FLOP of one update of all parameters of `layer`, over all ranks, done once."""
    rule, total = setting.optimizer.matrix, 0.0
    for part in layer.parts:
        size = _parameters(part)
        if rule is None or not covered(part, tables=rule.tables):
            total += size * setting.optimizer.elementwise.flop
            continue
        bias = part.bias * part.outputs * part.copies if isinstance(part, Linear) else 0
        total += (size - bias) * rule.flop + bias * setting.optimizer.elementwise.flop
        if isinstance(part, Linear):
            total += part.copies * newton_schulz_flops(part.inputs, part.outputs, rule.iterations)
    return float(total)


def _parameters(part: Part) -> int:
    return sum(Layer("", (part,)).parameters().values())


@formula(
    unit="B", source="2:4: both orientations written from the weights (torchao sparsify24); masks applied after it"
)
def prune_bytes(stage: Held, setting: Setting) -> Num:
    """Bytes that pruning moves once a step over a rank's resident weights; 0 without it."""
    has, method = stage.compressed, setting.pruning
    if has is None or not (method.sparse or method.masked):
        return 0.0
    touched = 2.0 * setting.value + method.masked * MASK
    packed = setting.value + sparse_copies(setting)
    return has.skipped * packed + (has.applied - has.skipped) * touched
