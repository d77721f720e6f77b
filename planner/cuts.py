"""The stages of a pipeline as a framework cuts them when it is given no layout.

Each stage gets the same number of layers, and the last one the output matrix besides. Where the layers don't divide,
Megatron-LM and DeepSpeed count embedding and output matrix as a layer each and leave the remainder to the last stage
(DeepSpeed's `type:transformer|embedding`). With MTP the embedding has no place of its own, and its module stands beside
the output matrix, before which the other chunks are full (Megatron-Bridge: `Et*4|(t*4|)*14tmL`, `Et|(tt|)*30mL`).
InternEvo gives the last stages one layer more.
"""

from __future__ import annotations

from functools import lru_cache

from planner.layout import Layout, chain, layer_kinds
from planner.model import Model

REMAINDER_LAST = ("internevo",)


@lru_cache(maxsize=4096)
def by_framework(model: Model, pp: int, vpp: int, stack: str) -> Layout:
    """The stages of different content, as the software of `stack` cuts the model into pp · vpp chunks."""
    columns, kinds = chain(model), range(len(layer_kinds(model)))
    cut = pieces(model, pp * vpp, stack)
    earliest: dict[tuple[int, ...], int] = {}
    for rank in range(pp):
        held = [columns[i] for piece in cut[rank::pp] for i in piece]
        earliest.setdefault(tuple(held.count(kind) for kind in kinds), rank)
    return Layout(tuple(earliest), tuple(earliest.values()), tuple(columns.count(kind) for kind in kinds))


def pieces(model: Model, chunks: int, stack: str) -> list[range]:
    """Positions of the chain that each chunk holds, in order of depth."""
    layers = len(chain(model)) - 2
    sizes = _sizes(layers, model.mtp_layers, chunks, stack)
    ends = [1 + sum(sizes[: i + 1]) for i in range(chunks)]
    ends[-1] = layers + 2
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _sizes(layers: int, ahead: int, chunks: int, stack: str) -> list[int]:
    """Layers of each chunk, without embedding and head; the last `ahead` of them are modules of MTP."""
    if layers % chunks == 0 and not ahead:
        return [layers // chunks] * chunks
    if stack in REMAINDER_LAST:
        return [layers // chunks + (i >= chunks - layers % chunks) for i in range(chunks)]
    each = -(-(layers + (1 if ahead else 2)) // chunks)
    front = min(layers - ahead, each * (chunks - 1)) if ahead else 0
    behind = [front - each * (chunks - 1 - i) if ahead else each * i - 1 for i in range(chunks)]
    starts = [0, *(min(max(start, 0), layers) for start in behind[1:])]
    return [end - start for start, end in zip(starts, [*starts[1:], layers], strict=True)]
