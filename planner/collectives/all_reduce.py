"""All-reduce as a library would run it: the fastest of ring, tree and hierarchical."""

from __future__ import annotations

import numpy as np

from planner.collectives.base import Path
from planner.collectives.hierarchical import hierarchical_all_reduce
from planner.collectives.ring import ring_all_reduce
from planner.collectives.tree import tree_all_reduce
from planner.formula import Num, formula


@formula(unit="s", source="NCCL src/graph/tuning.cc (the algorithm of least predicted time)")
def all_reduce(volume: Num, way: Path) -> Num:
    """The least of ring, tree and hierarchical all-reduce; the ring where ranks share cores (gloo has no other)."""
    ring = ring_all_reduce(volume, way)
    best = np.minimum(np.minimum(ring, tree_all_reduce(volume, way)), hierarchical_all_reduce(volume, way))
    chosen: Num = np.where(way.lockstep, ring, best)
    return chosen
