"""Re-planning from the placement in force: the most worthwhile moves first, no more of them than may be."""

from __future__ import annotations

import numpy as np

from planner.placement.align import align
from planner.placement.anneal import Weights
from planner.placement.base import Floats, Ints, Placement
from planner.placement.joint import Stay, Tokens, joint
from planner.placement.replicas import replica_counts
from planner.placement.task import Task

NOISE = 0.02  # of an item's visits: a move that saves less is not worth a fetch
DEARER = (64.0, 16.0, 4.0, 1.0)  # prices of a fetch in turn, so that the moves that save most come first
HEAT = 0.0
LIGHT = 0.5  # of a GPU's load: a replica that carries less is no hindrance to even loads


def warm(tokens: Tokens, task: Task, old: Placement, weights: Weights, moves: int, *, settled: bool) -> Placement:
    """`old` with at most `task.allowed` slots on other nodes, for less time of the layer; `old` where none is found.

    `settled`: every expert keeps its number of replicas.
    """
    count = np.bincount(old.slot_expert, minlength=task.experts)
    if not settled or old.slots != task.slots:
        count = near_counts(tokens.load, count, task.slots, task.grid.gpus)
    price = task.fetch + NOISE * tokens.ids.size / task.slots
    stay = Stay(old, count, task.allowed, tuple(price * dearer for dearer in DEARER))
    made = joint(tokens, task.slots, task.grid, old, weights, moves, task.seed, HEAT, linked=task.per_batch, stay=stay)
    made = align(made, old, task.experts, task.grid)
    return made if task.affords(made, old) else old


def near_counts(load: Floats, count: Ints, slots: int, gpus: int) -> Ints:
    """Replicas of each expert [experts]: `count` but for the fewest changes after which none carries too much.

    Too much is more than `LIGHT` of a GPU's mean load and than with the best counts.
    """
    best = replica_counts(load, slots, gpus)
    if int(count.sum()) != slots or count.max() > gpus:
        return best
    count = count.copy()
    level = max(float((load / best).max()), LIGHT * float(load.sum()) / gpus)
    while float((load / count).max()) > level * (1.0 + 1e-12):
        giver = int(np.where(count > 1, load / np.maximum(count - 1, 1), np.inf).argmin())
        count[int((load / count).argmax())] += 1
        count[giver] -= 1
        if float(load[giver] / count[giver]) > level or count.max() > gpus:
            return best
    return count
