"""What one rank holds of a layer: parameters (dense part cut by tp, experts by ep and etp) and rows of its tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import reduce

import numpy as np

from planner.compression.prune import INDEX_BITS
from planner.formula import Count, Num, formula
from planner.layers.base import Cut, Linear, Part, Pointwise, Table, Vector
from planner.model import Layer, Model
from planner.optimizers import Matrixwise
from planner.setting import Setting, sharded_tokens, tokens
from planner.strategy import Degrees

MASK = 1.0  # bytes of a weight's mask (torch.bool)
SPARSE_INDEX = 0.5 * INDEX_BITS / 8.0  # bytes of indices a weight, of which every second one stays


@dataclass(frozen=True)
class Matrices:
    """The matrices of a rank that its optimizer updates as a whole, before any ZeRO sharding.

    `dense`, `expert`: parameters of the rank's pieces; `..._edges`: their rows and columns; `..._whole`: parameters of
    the matrices they are pieces of; `..._work`, `..._largest` [s]: to orthogonalize all of those, and one of them;
    `..._piece_largest`: parameters of the largest piece.
    """

    dense: Num
    expert: Num
    dense_edges: Num
    expert_edges: Num
    dense_whole: Num
    expert_whole: Num
    dense_work: Num
    expert_work: Num
    dense_largest: Num
    expert_largest: Num
    dense_piece_largest: Num
    expert_piece_largest: Num


@dataclass(frozen=True)
class Compressed:
    """Weights of a rank that a compression is `applied` to, and those whose multiplies run `skipped` (2:4)."""

    applied: Num
    skipped: Num


@dataclass(frozen=True)
class Held:
    """Parameters per rank, before any ZeRO sharding, and the `tensors` they come in.

    `matrices` and `compressed` are there when the optimizer or a compression treats some of them apart.
    """

    dense: Num
    expert: Num
    tensors: Num
    matrices: Matrices | None = None
    compressed: Compressed | None = None


@formula(unit="parameters", source="Narayanan 2021; Megatron-Core parallel folding: experts over ep · etp")
def held(layer: Layer, degrees: Degrees) -> Held:
    """Parameters of `layer` on one rank."""
    dense: Num = 0.0
    expert: Num = 0.0
    tensors = 0.0
    for part in layer.parts:
        tensors += isinstance(part, Linear | Vector | Table) + (isinstance(part, Linear) and part.bias)
        if isinstance(part, Linear | Vector) and part.expert:
            expert = expert + _size(part, degrees.etp) * (part.copies / degrees.ep)
        else:
            dense = dense + _size(part, degrees.tp)
    return Held(dense, expert, tensors)


@formula(unit="parameters", source="layers of each kind on the stage; a tied output matrix is held once")
def stage_held(each: tuple[Held, ...], counts: tuple[Count, ...], model: Model, degrees: Degrees) -> Held:
    """Parameters of a stage that holds `counts` layers of each column of the layout."""
    dense: Num = sum(n * has.dense for n, has in zip(counts, each, strict=True))
    expert: Num = sum(n * has.expert for n, has in zip(counts, each, strict=True))
    if model.tied:
        embedding, head = counts[len(model.kinds)], counts[len(model.kinds) + 1]
        dense = dense - np.minimum(embedding, head) * (model.vocab * model.hidden / degrees.tp)
    tensors: Num = sum(n * has.tensors for n, has in zip(counts, each, strict=True))
    small = [has.compressed for has in each if has.compressed is not None]
    return Held(dense, expert, tensors, _stage_matrices(each, counts, model), _stage_compressed(small, counts))


def _stage_compressed(each: list[Compressed], counts: tuple[Count, ...]) -> Compressed | None:
    """Compressed weights of a stage; None where nothing is compressed."""
    if not each:
        return None
    pairs = list(zip(counts, each, strict=True))
    return Compressed(sum(n * has.applied for n, has in pairs), sum(n * has.skipped for n, has in pairs))


def _stage_matrices(each: tuple[Held, ...], counts: tuple[Count, ...], model: Model) -> Matrices | None:
    """The matrices of a stage; those of a tied output matrix once."""
    found = [has.matrices for has in each if has.matrices is not None]
    if not found:
        return None
    total: dict[str, Num] = {}
    for f in fields(Matrices):
        values = [getattr(one, f.name) for one in found]
        if f.name.endswith("_largest"):
            total[f.name] = reduce(np.maximum, [(n > 0) * v for n, v in zip(counts, values, strict=True)])
        else:
            total[f.name] = sum(n * v for n, v in zip(counts, values, strict=True))
    head = found[len(model.kinds) + 1]
    if model.tied:
        both = np.minimum(counts[len(model.kinds)], counts[len(model.kinds) + 1])
        for name in ("dense", "dense_edges", "dense_whole"):
            total[name] = total[name] - both * getattr(head, name)
    return Matrices(**total)


@formula(unit="parameters", source="the matrices that the compression applies to, cut as their layers are")
def compressed(layer: Layer, setting: Setting, degrees: Degrees) -> Compressed:
    """Weights of `layer` on one rank that are pruned or quantized; vectors and biases never are."""
    applied: Num = 0.0
    skipped: Num = 0.0
    for part in layer.parts:
        if not isinstance(part, Linear) or not any(method.applies(part) for method in setting.compressions):
            continue
        ways = 1 if part.cut is Cut.NONE else degrees.etp if part.expert else degrees.tp
        copies = part.copies / degrees.ep if part.expert else 1.0
        size = part.inputs * part.outputs / ways * copies
        applied = applied + size
        skipped = skipped + size * setting.pruning.skips(part)
    return Compressed(applied, skipped)


def sparse_copies(setting: Setting) -> float:
    """Bytes a weight of its two compressed orientations, kept beside it: half the values, two bits for each of them."""
    return setting.precision.operand + 2.0 * SPARSE_INDEX


@formula(unit="B", source="states of the optimizer and the copy of the weights that it updates")
def state_bytes(stage: Held, has: Matrices, setting: Setting) -> tuple[Num, Num]:
    """Bytes of the states of a rank's dense and expert parameters before ZeRO, matrices apart from the rest."""
    rule, master = setting.optimizer.hidden, setting.master
    each, whole = setting.optimizer.elementwise.state + master, rule.state + master
    edges = rule.edges if isinstance(rule, Matrixwise) else 0.0
    dense = (stage.dense - has.dense) * each + has.dense * whole + edges * has.dense_edges
    return dense, (stage.expert - has.expert) * each + has.expert * whole + edges * has.expert_edges


def linear_rows(part: Linear, setting: Setting, degrees: Degrees) -> Num:
    """Rows of one micro-batch that a matrix multiply works on; those of whole sequences are on each rank of tp."""
    if part.rows:
        return degrees.micro_batch * (part.rows * 1.0)
    return tokens(setting, degrees) if part.cut is not Cut.NONE else sharded_tokens(setting, degrees)


def pointwise_rows(part: Pointwise, setting: Setting, degrees: Degrees) -> Num:
    """Tokens (times experts visited) of a memory-bound tensor on one rank, a width cut by tp counted as fewer."""
    if part.rows:
        whole: Num = degrees.micro_batch * (part.rows * 1.0)
        return whole / degrees.tp if part.cut is Cut.COLUMN else whole
    rows: Num = sharded_tokens(setting, degrees)
    if part.expert or part.cut is Cut.COLUMN:
        rows = tokens(setting, degrees) / degrees.tp
    return rows * part.active


def _size(part: Part, ways: Count) -> Num:
    """Parameters of one copy of `part` on one of `ways` ranks."""
    if isinstance(part, Linear):
        bias = part.outputs / ways if part.cut is Cut.COLUMN else part.outputs * 1.0
        weight = part.inputs * part.outputs * 1.0
        return (weight if part.cut is Cut.NONE else weight / ways) + part.bias * bias
    if isinstance(part, Vector):
        return part.size / ways if part.cut is Cut.COLUMN else part.size * 1.0
    if isinstance(part, Table):
        return part.rows * part.width / ways if part.cut is Cut.COLUMN else part.rows * part.width * 1.0
    return 0.0
