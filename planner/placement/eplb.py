"""The two policies of DeepSeek's expert-parallel load balancer, from its description (deepseek-ai/EPLB, MIT).

Hierarchical: groups of experts to nodes, replicas inside each node, replicas to the node's GPUs. Global: the same with
one group and one node. Each packing is longest-processing-time-first with equal counts.
"""

from __future__ import annotations

import numpy as np

from planner.placement.base import Floats, Grid, Ints, Placement, even


def hierarchical_fits(experts: int, slots: int, grid: Grid, groups: int) -> bool:
    """Whether the hierarchical policy is defined: its counts must divide."""
    return groups > 1 and groups % grid.nodes == 0 and experts % groups == 0 and slots % grid.gpus == 0


def global_fits(slots: int, grid: Grid) -> bool:
    """Whether the global policy is defined."""
    return slots % grid.gpus == 0


def hierarchical(load: Floats, slots: int, grid: Grid, groups: int) -> Placement:
    """Router groups stay whole on a node; `load` [experts]."""
    return _place(load, slots, groups, grid.nodes, grid.gpus)


def global_policy(load: Floats, slots: int, grid: Grid) -> Placement:
    """Nodes are ignored; `load` [experts]."""
    return _place(load, slots, 1, 1, grid.gpus)


def _place(load: Floats, slots: int, groups: int, nodes: int, gpus: int) -> Placement:
    size = load.size // groups
    pack, rank = _packed(load.reshape(groups, size).sum(axis=1), nodes)
    # position of each expert when the groups are laid out node by node
    position = ((pack * (groups // nodes) + rank) * size)[:, None] + np.arange(size)
    by_position = np.empty(load.size, dtype=np.int64)
    by_position[position.ravel()] = np.arange(load.size)
    per_node, slots_per_node, gpus_per_node = load.size // nodes, slots // nodes, gpus // nodes
    expert_of = []
    for node in range(nodes):
        own = by_position[node * per_node : (node + 1) * per_node]
        replica, count = _replicated(load[own], slots_per_node)
        pack, rank = _packed((load[own] / count)[replica], gpus_per_node)
        slot = np.empty(slots_per_node, dtype=np.int64)
        slot[pack * (slots_per_node // gpus_per_node) + rank] = np.arange(slots_per_node)
        expert_of.append(own[replica[slot]])
    return even(np.concatenate(expert_of), np.arange(slots) // (slots // gpus))


def _replicated(load: Floats, slots: int) -> tuple[Ints, Ints]:
    """The expert of each of `slots` replicas, one each first, then one by one to the largest load per replica."""
    expert, count = np.arange(slots), np.ones(load.size, dtype=np.int64)
    for slot in range(load.size, slots):
        heaviest = int((load / count).argmax())
        expert[slot] = heaviest
        count[heaviest] += 1
    return expert, count


def _packed(weight: Floats, packs: int) -> tuple[Ints, Ints]:
    """Pack and position in it of each item: heaviest first to the lightest pack that has room, equal counts."""
    room = weight.size // packs
    pack, rank = np.empty(weight.size, dtype=np.int64), np.empty(weight.size, dtype=np.int64)
    if room == 1:
        return np.arange(weight.size), np.zeros(weight.size, dtype=np.int64)
    fill, used = np.zeros(packs), np.zeros(packs, dtype=np.int64)
    for item in np.argsort(-weight, kind="stable"):
        best = int(np.where(used < room, fill, np.inf).argmin())
        pack[item], rank[item] = best, used[best]
        fill[best] += weight[item]
        used[best] += 1
    return pack, rank
