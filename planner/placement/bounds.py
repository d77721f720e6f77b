"""Lower bounds: how even loads can get, and how few nodes a token can visit. Valid for every placement of the kind."""

from __future__ import annotations

import numpy as np

from planner.placement.base import Floats, Ints
from planner.placement.replicas import bound_level

STEPS = 60  # Frank-Wolfe iterations; the bound holds after any number of them


def balance_bound(load: Floats, slots: int, gpus: int) -> float:
    """Least largest-over-mean GPU load for `load` [experts] on `slots` slots, however replicas share.

    A replica carries at most the load L of the fullest GPU, so Σ ceil(load / L) <= slots.
    """
    mean = float(load.sum()) / gpus
    return max(bound_level(load, slots), mean) / mean


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
