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
    """The least of ring, tree and hierarchical all-reduce."""
    flat = np.minimum(ring_all_reduce(volume, way), tree_all_reduce(volume, way))
    return np.minimum(flat, hierarchical_all_reduce(volume, way))
