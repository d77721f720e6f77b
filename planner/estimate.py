"""The estimate of a strategy, or of a million: step time and peak memory from the same formulas."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.cost.layer import LayerTime, layer_time
from planner.cost.step import LayerCost, StepTime, step_time
from planner.cost.update import matrices
from planner.formula import Num
from planner.layout import Layout, layer_kinds, layout
from planner.memory.stage import LayerBytes, Memory, common, layer_bytes, stage_memory
from planner.model import Layer
from planner.setting import Setting
from planner.sharding import Held, compressed, held
from planner.strategy import Degrees


@dataclass(frozen=True)
class Unit:
    """What one layer of a kind costs a rank: time per micro-batch and memory."""

    cost: LayerCost
    memory: LayerBytes


@dataclass(frozen=True)
class Estimate:
    """A priced strategy: `step` by what it is spent on, `stages` the memory of each stage shape of `layout`."""

    step: StepTime
    stages: tuple[Memory, ...]
    layout: Layout

    @property
    def peak(self) -> Num:
        """Peak bytes over the stages."""
        return peak(self.stages)


def units(setting: Setting, degrees: Degrees) -> tuple[Unit, ...]:
    """The cost of one layer of each column of the layout; depends on tp, cp, ep, etp and micro_batch alone."""
    kinds = layer_kinds(setting.model)
    ends = range(len(setting.model.kinds), len(setting.model.kinds) + 2)
    times = [layer_time(kind, setting, degrees, rerun=at not in ends) for at, kind in enumerate(kinds)]
    if len(kinds) > len(setting.model.kinds) + 2:
        times[-1] = _plus(times[-1], times[-2])  # MTP runs the output matrix again
    holds = [_held(kind, setting, degrees) for kind in kinds]
    return tuple(
        Unit(LayerCost(time, has), layer_bytes(kind, has, setting, degrees))
        for kind, (time, has) in enumerate(zip(times, holds, strict=True))
    )


def _held(layer: Layer, setting: Setting, degrees: Degrees) -> Held:
    """What a rank holds of a layer, its matrices apart where the optimizer treats them apart."""
    has = held(layer, degrees)
    if setting.optimizer.matrix:
        has = replace(has, matrices=matrices(layer, setting, degrees))
    return replace(has, compressed=compressed(layer, setting, degrees)) if setting.compressions else has


def evaluate(parts: tuple[Unit, ...], shape: Layout, setting: Setting, degrees: Degrees) -> Estimate:
    """Step time and memory of strategies whose layer costs are known."""
    return Estimate(priced(parts, shape, setting, degrees), memories(parts, shape, setting, degrees), shape)


def priced(parts: tuple[Unit, ...], shape: Layout, setting: Setting, degrees: Degrees) -> StepTime:
    """The step time of strategies whose layer costs are known."""
    return step_time(tuple(part.cost for part in parts), shape, setting, degrees)


def memories(parts: tuple[Unit, ...], shape: Layout, setting: Setting, degrees: Degrees) -> tuple[Memory, ...]:
    """The memory of each stage shape of strategies whose layer costs are known."""
    memory = tuple(part.memory for part in parts)
    shared = common(memory, setting, degrees)
    held = shape.held or (None,) * len(shape.stage)
    stages = zip(shape.counts, shape.stage, held, strict=True)
    return tuple(
        stage_memory(memory, counts, rank, shared, setting, degrees, flying) for counts, rank, flying in stages
    )


def peak(stages: tuple[Memory, ...]) -> Num:
    """Peak bytes over the stages."""
    total: Num = reduce(np.maximum, [stage.total for stage in stages])
    return total


def estimate(setting: Setting, degrees: Degrees) -> Estimate:
    """One strategy of plain ints, priced."""
    shape = layout(setting.model, setting.workload.seq_len, int(degrees.pp), int(degrees.vpp))
    return evaluate(units(setting, degrees), shape, setting, degrees)


def take(tree: Any, index: NDArray[np.int64]) -> Any:
    """The same dataclass with every array leaf taken at `index`; plain numbers stay."""
    if isinstance(tree, np.ndarray):
        return tree[index] if tree.ndim else tree
    if isinstance(tree, tuple):
        return tuple(take(item, index) for item in tree)
    if hasattr(tree, "__dataclass_fields__"):
        return type(tree)(**{f.name: take(getattr(tree, f.name), index) for f in fields(tree)})
    return tree


def _plus(a: LayerTime, b: LayerTime) -> LayerTime:
    """Field by field sum."""
    return LayerTime(**{f.name: getattr(a, f.name) + getattr(b, f.name) for f in fields(LayerTime)})
