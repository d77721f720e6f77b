"""The stages of a pipeline as a framework cuts them when it is given no layout.

Each stage gets the same number of layers, and the last one the output matrix besides. Where the layers don't divide,
Megatron-LM and DeepSpeed count embedding and output matrix as a layer each and leave the remainder to the last stage
(DeepSpeed's `type:transformer|embedding`). With MTP the embedding has no place of its own, and its module stands beside
the output matrix, before which the other chunks are full (Megatron-Bridge: `Et*4|(t*4|)*14tmL`, `Et|(tt|)*30mL`).
InternEvo gives the last stages one layer more.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

from planner.layout import Layout, chain, layer_kinds
from planner.model import Model

REMAINDER_LAST = ("internevo",)


@lru_cache(maxsize=4096)
def by_framework(model: Model, pp: int, vpp: int, stack: str) -> Layout:
    """The stages of different content, as the software of `stack` cuts the model into pp · vpp chunks."""
    kinds = range(len(layer_kinds(model)))
    earliest: dict[tuple[int, ...], int] = {}
    for rank, chunks in enumerate(stages(model, pp, vpp, stack)):
        earliest.setdefault(tuple(sum(chunk.count(kind) for chunk in chunks) for kind in kinds), rank)
    return Layout(tuple(earliest), tuple(earliest.values()), tuple(chain(model).count(kind) for kind in kinds))


def stages(model: Model, pp: int, vpp: int, stack: str) -> list[list[tuple[int, ...]]]:
    """The columns of the chain that each chunk of each stage holds, in order of depth."""
    columns = chain(model)
    sizes = _sizes(len(columns) - 2, model.mtp_layers, pp * vpp, stack)
    starts = [0, *(1 + before for before in accumulate(sizes[:-1]))]
    chunks = [columns[start:end] for start, end in zip(starts, [*starts[1:], len(columns)], strict=True)]
    return [chunks[rank::pp] for rank in range(pp)]


def _sizes(layers: int, ahead: int, chunks: int, stack: str) -> list[int]:
    """Layers of each chunk, without embedding and head; the last `ahead` of them are modules of MTP."""
    if layers % chunks == 0 and not ahead:
        return [layers // chunks] * chunks
    if stack in REMAINDER_LAST:
        return [layers // chunks + (i >= chunks - layers % chunks) for i in range(chunks)]
    each = -(-(layers + (1 if ahead else 2)) // chunks)
    if ahead:
        front = min(layers - ahead, each * (chunks - 1))
        starts = [front - each * (chunks - 1 - i) for i in range(chunks)]
    else:
        starts = [each * i - 1 for i in range(chunks)]
    starts = [0, *(min(max(start, 0), layers) for start in starts[1:])]
    return [end - start for start, end in zip(starts, [*starts[1:], layers], strict=True)]
