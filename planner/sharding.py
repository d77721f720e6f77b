"""What one rank holds of a layer: parameters (dense part cut by tp, experts by ep and etp) and rows of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.formula import Count, Num, formula
from planner.layers.base import Cut, Linear, Part, Pointwise, Table, Vector
from planner.model import Layer, Model
from planner.setting import Setting, sharded_tokens, tokens
from planner.strategy import Degrees


@dataclass(frozen=True)
class Held:
    """Parameters per rank, before any ZeRO sharding, and the `tensors` they come in."""

    dense: Num
    expert: Num
    tensors: Num


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
    return Held(dense, expert, tensors)


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
