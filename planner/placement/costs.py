"""What a change of placement and the replicas themselves cost beside the layer's own time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.placement.base import Expert, Grid, Placement, Rates

GRADIENT_BYTES = 2.0  # of a parameter in the sum over replicas


@dataclass(frozen=True)
class Migration:
    """`moved` (expert, GPU) pairs that were not there, `between_nodes` of them from another node; `seconds` [s] of the
    busiest NIC with weights and optimizer state.
    """

    moved: int
    between_nodes: int
    seconds: float


def migration(old: Placement, new: Placement, grid: Grid, rates: Rates, expert: Expert) -> Migration:
    """From `old` to `new`: a GPU fetches what it lacks from its node, else from the holder that sent least so far."""
    holders: dict[int, list[int]] = {}
    for e, g in zip(old.slot_expert.tolist(), old.slot_gpu.tolist(), strict=True):
        holders.setdefault(e, []).append(g)
    sent, got = np.zeros(grid.gpus), np.zeros(grid.gpus)
    lacking = sorted(
        {
            (e, g)
            for e, g in zip(new.slot_expert.tolist(), new.slot_gpu.tolist(), strict=True)
            if g not in holders.get(e, [])
        }
    )
    between = 0
    for e, g in lacking:
        near = any(x // grid.gpus_per_node == g // grid.gpus_per_node for x in holders[e])
        if not near:
            source = min(holders[e], key=lambda x: sent[x])
            sent[source] += 1
            got[g] += 1
            between += 1
    size = expert.parameters * (expert.param_bytes + expert.optimizer_bytes)
    return Migration(len(lacking), between, float(max(sent.max(), got.max())) * size / rates.nic)


def replica_sync(placement: Placement, grid: Grid, rates: Rates, expert: Expert) -> float:
    """Time [s] per optimizer step in which the busiest GPU sums gradients with the other replicas, by rings."""
    busy = np.zeros(grid.gpus)
    table = placement.table(int(placement.slot_expert.max()) + 1)
    for slots in table[(table >= 0).sum(axis=1) > 1]:
        gpus = np.unique(placement.slot_gpu[slots[slots >= 0]])
        if gpus.size > 1:
            busy[gpus] += 2 * (gpus.size - 1) / gpus.size * expert.parameters * GRADIENT_BYTES
    return float(busy.max()) / rates.nic
