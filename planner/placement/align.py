"""New names for nodes and GPUs that leave a placement as good as it was and move as few experts as can be."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from planner.placement.base import Floats, Grid, Ints, Placement


def align(new: Placement, old: Placement, experts: int, grid: Grid) -> Placement:
    """`new` with its nodes, then the GPUs of each node, renamed to share the most experts with `old`.

    GPUs trade places only where they hold equally many slots.
    """
    each = grid.gpus_per_node
    node = _names(_held(new, experts, grid.nodes, each), _held(old, experts, grid.nodes, each), grid.nodes)
    gpu = (node[new.slot_gpu // each]) * each + new.slot_gpu % each
    before, now = _held(old, experts, grid.gpus, 1), np.zeros((grid.gpus, experts))
    np.add.at(now, (gpu, new.slot_expert), 1.0)
    name = np.arange(grid.gpus)
    for n in range(grid.nodes):
        own = slice(n * each, (n + 1) * each)
        name[own] = n * each + _names(now[own], before[own], each)
    gpu = name[gpu]
    order = np.lexsort((new.slot_expert, gpu))
    return Placement(new.slot_expert[order], gpu[order], new.share[order])


def _held(placement: Placement, experts: int, places: int, per_place: int) -> Floats:
    """How often a place (GPU, or node of `per_place` GPUs) holds an expert [places, experts]."""
    found = np.zeros((places, experts))
    np.add.at(found, (placement.slot_gpu // per_place, placement.slot_expert), 1.0)
    return found


def _names(now: Floats, before: Floats, places: int) -> Ints:
    """The new name of each place: most experts in common, equal sizes only."""
    common = np.minimum(now[:, None, :], before[None, :, :]).sum(axis=2)
    unequal = now.sum(axis=1)[:, None] != before.sum(axis=1)[None, :]
    _, column = linear_sum_assignment(-(common - 1e6 * unequal))
    return np.asarray(column) if places else np.arange(0)
