"""Lower bounds: how even loads can get, and how few nodes a token can visit. Valid for every placement of the kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.placement.base import Floats, Grid, Ints, Placement
from planner.placement.evaluate import serve
from planner.placement.relax import Rooms, visits_bound
from planner.placement.replicas import bound_level

STEPS = 60  # Frank-Wolfe iterations; the bound holds after any number of them


def bounds_of(placement: Placement, ids: Ints, experts: int, grid: Grid, *, in_turn: bool) -> dict[str, float]:
    """Lower bounds for `ids` [tokens, topk]: of balance, and of nodes per token.

    `nodes_per_token` holds for every placement with these numbers of replicas, whichever of them serves a token.
    `nodes_per_token_alike`, where replicas serve `in_turn`, for placements whose replicas take the turns that they take
    here and whose fullest node has no more load than the fullest here.
    """
    load = np.bincount(ids.ravel(), minlength=experts).astype(float)
    replicas = np.bincount(placement.slot_expert, minlength=experts)
    node = placement.slot_gpu // grid.gpus_per_node
    room = np.bincount(node, minlength=grid.nodes)
    slots = serve(placement, ids, experts)
    items = np.argsort(np.argsort(placement.slot_expert, kind="stable"), kind="stable")[slots]
    alike = Rooms(grid.nodes, int(room.min()), int(room.max()), float(np.bincount(node[slots].ravel()).max()))
    found = {"balance": balance_bound(load, placement.slots, grid.gpus)}
    if placement.slots == experts:
        found["nodes_per_token"] = visits_bound(items, placement.slots, replace(alike, cap=np.inf))
    else:
        found["nodes_per_token"] = nodes_bound(ids, experts, int(room.max()), replicas)
    if in_turn:
        found["nodes_per_token_alike"] = max(found["nodes_per_token"], visits_bound(items, placement.slots, alike))
    return found


def balance_bound(load: Floats, slots: int, gpus: int) -> float:
    """Least largest-over-mean GPU load for `load` [experts] on `slots` slots, however replicas share.

    A replica carries at most the load L of the fullest GPU, so Σ ceil(load / L) <= slots. GPUs have slots // gpus slots
    at least: without replicas, the heaviest expert has as many others beside it.
    """
    mean = float(load.sum()) / gpus
    least = max(bound_level(load, slots), mean)
    if slots == load.size:
        beside = np.sort(load)[: max(slots // gpus - 1, 0)]
        least = max(least, float(load.max() + beside.sum()))
    return least / mean


def nodes_bound(ids: Ints, experts: int, per_node: int, replicas: Ints) -> float:
    """Least mean number of distinct nodes per token of `ids` [tokens, topk], `per_node` slots a node.

    A token that finds h of its experts on a node counts 1/h for each, so nodes = Σ over its experts of 1/h. Which
    experts share a node with e is relaxed to weights in [0, 1] that sum to what its replicas' nodes hold beside it;
    1/h becomes its convex hull. Frank-Wolfe minimizes that per expert, and what its gap could still save is subtracted.
    """
    tokens, topk = ids.shape
    if topk == 1:
        return 1.0
    row = np.repeat(ids.reshape(-1), topk - 1)  # e for each (e, f) of a token
    other = np.stack([np.delete(ids, k, axis=1) for k in range(topk)], axis=1).reshape(-1)
    pair = row * experts + other
    room = np.minimum(replicas * (per_node - 1), experts - 1)
    value = 1.0 / np.arange(1, topk + 1)
    slope = np.append(np.diff(value), 0.0)
    at = np.zeros((experts, experts))
    bound = 0.0
    for step in range(STEPS):
        together = at.reshape(-1)[pair].reshape(tokens * topk, topk - 1).sum(axis=1)
        whole = np.minimum(together.astype(np.int64), topk - 1)
        cost = value[whole] + slope[whole] * (together - whole)
        pushed = np.bincount(pair, weights=np.repeat(slope[whole], topk - 1), minlength=experts**2)
        gradient = pushed.astype(np.float64).reshape(experts, experts)
        vertex = _cheapest(gradient, room)
        saved = float((gradient * (at - vertex)).sum())
        bound = max(bound, float(cost.sum()) - saved)
        at += 2.0 / (step + 2) * (vertex - at)
    return max(1.0, float(bound / tokens))


def _cheapest(gradient: Floats, room: Ints) -> Floats:
    """The vertex [experts, experts] that takes the `room[e]` most negative entries of each row."""
    order = np.argsort(gradient, axis=1, kind="stable")
    taken = np.arange(gradient.shape[1])[None, :] < room[:, None]
    vertex = np.zeros_like(gradient)
    np.put_along_axis(vertex, order, taken.astype(float), axis=1)
    return vertex * (gradient < 0)
