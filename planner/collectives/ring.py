"""Ring collectives: bandwidth optimal, latency grows with the ranks.

Source: Patarasuk & Yuan 2009; NCCL tuning model (NVIDIA/nccl src/graph/tuning.cc): steps · latency + bytes / bus rate.
`volume` is the whole tensor [B]: gathered, to be scattered, or reduced.
"""

from __future__ import annotations

from planner.collectives.base import Path, wire
from planner.formula import Num, formula

_SOURCE = "Patarasuk & Yuan 2009; NCCL src/graph/tuning.cc"


@formula(unit="s", source=_SOURCE)
def all_gather(volume: Num, way: Path) -> Num:
    """Ring all-gather: (n - 1) / n of the tensor passes each link."""
    size = way.group.size
    return way.launch + way.hops + wire(volume * ((size - 1) / size), way)


@formula(unit="s", source=_SOURCE)
def reduce_scatter(volume: Num, way: Path) -> Num:
    """Ring reduce-scatter: the mirror image of the all-gather."""
    size = way.group.size
    return way.launch + way.hops + wire(volume * ((size - 1) / size), way)


@formula(unit="s", source=_SOURCE)
def ring_all_reduce(volume: Num, way: Path) -> Num:
    """Ring all-reduce: reduce-scatter, then all-gather, in one launch."""
    size = way.group.size
    return way.launch + 2.0 * way.hops + wire(2.0 * volume * ((size - 1) / size), way)
