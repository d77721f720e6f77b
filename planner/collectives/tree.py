"""Double binary tree all-reduce: latency grows with the logarithm of the ranks."""

from __future__ import annotations

from planner.collectives.base import Path, depth, wire
from planner.formula import Num, formula


@formula(unit="s", source="Sanders, Speck & Träff 2009; NCCL 2.4 double binary trees")
def tree_all_reduce(volume: Num, way: Path) -> Num:
    """Tree all-reduce: the whole tensor goes up and comes down once."""
    sent = 2.0 * volume * (way.group.size > 1)
    return way.launch + 2.0 * depth(way) + wire(sent, way)
