"""Hierarchical all-reduce: scatter inside the scale-up domain, reduce across domains on every NIC, gather inside."""

from __future__ import annotations

import numpy as np

from planner.collectives.base import Group, Path, path
from planner.collectives.ring import all_gather, reduce_scatter, ring_all_reduce
from planner.formula import Num, formula


@formula(unit="s", source="Cho et al. 2019 (BlueConnect)")
def hierarchical_all_reduce(volume: Num, way: Path) -> Num:
    """Three phases: the middle one moves 1 / (members of the domain) of the tensor."""
    size, stride = way.group.size, way.group.stride
    inside = np.floor(way.members[0])
    local = path(Group(inside, stride), way.tiers)
    across = path(Group(np.ceil(size / inside), stride * inside), way.tiers)
    return reduce_scatter(volume, local) + ring_all_reduce(volume / inside, across) + all_gather(volume, local)
