"""Which layers stand on which pipeline stage: exact for ragged pipelines, and few distinct stage shapes.

The chain embedding, layers, MTP, head is cut into pp · vpp contiguous chunks; stage r runs the chunks r, r + pp, …
Stages of the same content are one shape, represented by its earliest stage, which holds the most micro-batches.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.formula import Count, Num
from planner.model import Layer, Model


@dataclass(frozen=True)
class Layout:
    """Stage shapes of one pipeline, or of a batch of them.

    `counts[s][k]` layers of kind k (see `layer_kinds`) on a stage of shape s, `stage[s]` its earliest stage (numbers
    or arrays [n]); `total[k]` layers of kind k in the whole model. `held[s][k]`: layers of kind k times the
    micro-batches in flight, where chunks differ in both; None: every chunk holds what the schedule's mean chunk does.
    """

    counts: tuple[tuple[Count, ...], ...]
    stage: tuple[Count, ...]
    total: tuple[int, ...]
    held: tuple[tuple[Num, ...], ...] | None = None


def layer_kinds(model: Model) -> tuple[Layer, ...]:
    """The columns of a layout: the model's kinds, then embedding, head and, if any, MTP."""
    extra = (model.mtp,) if model.mtp is not None and model.mtp_layers else ()
    return (*model.kinds, model.embedding, model.head, *extra)


def weights(model: Model, seq_len: int) -> tuple[float, ...]:
    """Forward FLOP per token of each column of a layout, the weight by which stages are balanced."""
    flops = [kind.forward_flops(seq_len, causal=True) for kind in layer_kinds(model)]
    if len(flops) > len(model.kinds) + 2:
        flops[-1] += model.head.linear_flops()
    return tuple(float(x) for x in flops)


def chain(model: Model) -> tuple[int, ...]:
    """Columns of `layer_kinds` in the order of depth."""
    first = len(model.kinds)
    mtp = (first + 2,) * (model.mtp_layers if model.mtp is not None else 0)
    return (first, *model.order, *mtp, first + 1)


def cut(load: list[float], chunks: int) -> list[int]:
    """Ends of `chunks` contiguous pieces of least maximum load, filled from the back.

    The remainder falls on the first piece, whose stage holds the most activations. Binary search over the capacity.
    """
    low, high = max(load), sum(load)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _pieces(load, middle) <= chunks else (middle, high)
    return _ends(load, high * (1 + 1e-12), chunks)


def _pieces(load: list[float], capacity: float) -> int:
    used, pieces = 0.0, 1
    for item in reversed(load):
        if used + item > capacity:
            used, pieces = 0.0, pieces + 1
        used += item
    return pieces


def _ends(load: list[float], capacity: float, chunks: int) -> list[int]:
    ends = [len(load)]
    used = 0.0
    for index in range(len(load) - 1, -1, -1):
        full = used + load[index] > capacity
        scarce = index + 1 < chunks - len(ends) + 1  # leave one item for each piece still to come
        if (full or scarce) and len(ends) < chunks and index + 1 < ends[-1]:
            ends.append(index + 1)
            used = 0.0
        used += load[index]
    return ends[::-1]


@lru_cache(maxsize=4096)
def chunks(model: Model, seq_len: int, pp: int, vpp: int) -> tuple[range, ...]:
    """Positions of `chain` that each of the pp · vpp chunks holds, in order of depth."""
    columns = chain(model)
    weight = weights(model, seq_len)
    lightest = min(x for x in weight if x > 0.0)
    load = [max(weight[column], 1e-3 * lightest) for column in columns]
    ends = cut(load, pp * vpp)
    return tuple(range(start, end) for start, end in zip((0, *ends), ends, strict=False))


@lru_cache(maxsize=4096)
def stage_counts(model: Model, seq_len: int, pp: int, vpp: int) -> tuple[tuple[int, ...], ...]:
    """Layers of each column on each of the `pp` stages, exact."""
    columns = chain(model)
    content: list[Counter[int]] = [Counter() for _ in range(pp)]
    for chunk, held in enumerate(chunks(model, seq_len, pp, vpp)):
        content[chunk % pp].update(columns[position] for position in held)
    return tuple(tuple(stage[column] for column in range(len(layer_kinds(model)))) for stage in content)


def layout(model: Model, seq_len: int, pp: int, vpp: int) -> Layout:
    """The stage shapes of one pipeline that can be the slowest or the fullest, as plain ints, without padding.

    A shape is left out when an earlier stage holds at least as much of every kind: it is neither.
    """
    earliest: dict[tuple[int, ...], int] = {}
    for stage, counts in enumerate(stage_counts(model, seq_len, pp, vpp)):
        earliest.setdefault(counts, stage)
    kept = [
        (counts, stage)
        for counts, stage in earliest.items()
        if not any(_covers(other, counts) for other, first in earliest.items() if first < stage)
    ]
    total = tuple(Counter(chain(model))[column] for column in range(len(kept[0][0])))
    return Layout(tuple(counts for counts, _ in kept), tuple(stage for _, stage in kept), total)


def _covers(big: tuple[int, ...], small: tuple[int, ...]) -> bool:
    return all(b >= a for a, b in zip(small, big, strict=True))


def stack(layouts: list[Layout], index: NDArray[np.int64]) -> Layout:
    """The batch of layouts `layouts[index]`, padded to the most shapes among them by repeating the last."""
    most = max(len(x.stage) for x in layouts)

    def column(values: list[Any]) -> NDArray[np.int64]:
        return np.asarray(values, dtype=np.int64)[index]

    def padded(items: tuple[Any, ...], shape: int) -> Any:
        return items[min(shape, len(items) - 1)]

    kinds = range(len(layouts[0].total))
    counts = tuple(tuple(column([padded(x.counts, s)[k] for x in layouts]) for k in kinds) for s in range(most))
    stage = tuple(column([padded(x.stage, s) for x in layouts]) for s in range(most))
    return Layout(counts, stage, layouts[0].total)
