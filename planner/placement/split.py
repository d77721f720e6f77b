"""Which replica serves which token, batch by batch: shares from the batch's own loads, locality within them.

`least` solves the linear program; `poured` levels loads by water-filling, which every rank can do alone from the sums
of tokens per expert over all ranks. `local` then serves each rank's tokens from its part of each slot's quota.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack, vstack

from planner.placement.anneal import njit
from planner.placement.base import Floats, Ints, Placement

ROUNDS = 30  # of water-filling; loads are level to 1e-3 long before


def least(placement: Placement, load: Floats, gpus: int) -> Floats:
    """Tokens that each slot serves [slots] for the least largest GPU load, `load` [experts] of the batch (HiGHS)."""
    slots, experts = placement.slots, load.size
    own = csr_array((np.ones(slots), (placement.slot_expert, np.arange(slots))), shape=(experts, slots))
    on = csr_array((np.ones(slots), (placement.slot_gpu, np.arange(slots))), shape=(gpus, slots))
    top = csr_array(-np.ones((gpus, 1)))
    cost = np.append(np.zeros(slots), 1.0)
    found = linprog(
        cost,
        A_ub=hstack([on, top]),
        b_ub=np.zeros(gpus),
        A_eq=vstack([hstack([own, csr_array((experts, 1))])]),
        b_eq=load,
        method="highs",
    )
    return np.asarray(np.maximum(found.x[:-1], 0.0))


def poured(placement: Placement, load: Floats, gpus: int) -> Floats:
    """As `least`, by water-filling: each expert in turn pours its tokens over its replicas' GPUs, lowest first."""
    quota = load[placement.slot_expert] * placement.share
    return np.asarray(_pour(placement.table(load.size), placement.slot_gpu, load, quota, gpus, ROUNDS))


@njit(cache=True)
def _pour(table: Any, gpu: Any, load: Any, quota: Any, gpus: int, rounds: int) -> Any:
    fill = np.zeros(gpus)
    for slot in range(quota.size):
        fill[gpu[slot]] += quota[slot]
    for _ in range(rounds):
        for expert in range(load.size):
            own = table[expert][table[expert] >= 0]
            if own.size < 2:
                continue
            for slot in own:
                fill[gpu[slot]] -= quota[slot]
            level = _level(fill[gpu[own]], load[expert])
            for slot in own:
                quota[slot] = max(level - fill[gpu[slot]], 0.0)
                fill[gpu[slot]] += quota[slot]
    return quota


@njit(cache=True)
def _level(floor: Any, water: float) -> float:
    """The level that `water` reaches over `floor` [bins]."""
    ordered = np.sort(floor)
    below = level = 0.0
    for i in range(ordered.size):
        below += ordered[i]
        level = (water + below) / (i + 1)
        if i + 1 == ordered.size or level <= ordered[i + 1]:
            break
    return level


def serve(placement: Placement, ids: Ints, src: Ints, quota: Floats, gpus_per_node: int, ranks: int) -> Ints:
    """The slot of each of `ids` [tokens, topk] when each source rank may use its part of each slot's `quota` [slots].

    A rank's part is in proportion to its own tokens of the expert. It needs no other rank's choices: with `ranks` 1
    one planner assigns the whole batch. Tokens go where they go already: to the nodes of experts with one replica.
    """
    rank = src if ranks > 1 else np.zeros_like(src)
    experts = int(placement.slot_expert.max()) + 1
    own = np.zeros((ranks, experts))
    np.add.at(own, (np.repeat(rank, ids.shape[1]), ids.ravel()), 1.0)
    total = np.maximum(own.sum(axis=0), 1.0)
    part = quota[None, :] * (own / total)[:, placement.slot_expert]
    node = placement.slot_gpu // gpus_per_node
    return np.asarray(_serve(placement.table(experts), node, ids, rank, part, src // gpus_per_node))


@njit(cache=True)
def _serve(table: Any, node: Any, ids: Any, rank: Any, part: Any, home: Any) -> Any:
    """Fixed experts first; then each free choice goes to a visited node with quota left, else to the fullest quota."""
    tokens, topk = ids.shape
    slots = np.empty((tokens, topk), dtype=np.int64)
    visited = np.full(node.max() + 1, -1)
    for t in range(tokens):
        visited[home[t]] = t
        for k in range(topk):
            slots[t, k] = -1
            if table.shape[1] == 1 or table[ids[t, k], 1] < 0:
                slots[t, k] = table[ids[t, k], 0]
                visited[node[slots[t, k]]] = t
        left = part[rank[t]]
        for k in range(topk):
            if slots[t, k] >= 0:
                continue
            best, most = -1, -1e300
            for slot in table[ids[t, k]]:
                if slot < 0:
                    break
                value = left[slot] + (1e9 if visited[node[slot]] == t and left[slot] >= 0.5 else 0.0)
                if value > most:
                    best, most = slot, value
            slots[t, k] = best
            left[best] -= 1.0
            visited[node[best]] = t
    return slots
