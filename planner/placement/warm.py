"""Re-planning from the placement in force: the most worthwhile moves first, no more of them than may be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.placement.align import align
from planner.placement.anneal import MANY, Weights
from planner.placement.base import Floats, Ints, Placement
from planner.placement.joint import Stay, Tokens, joint, served
from planner.placement.replicas import replica_counts
from planner.placement.task import Task

NOISE = 0.01  # of an item's visits: a move that saves less is not worth a fetch
DEAREST, TRIES = 64.0, 5  # times that price at most, and tries to find the price that keeps the budget
HEAT = 0.3
LIGHT = 0.5  # of a GPU's load: a replica that carries less is no hindrance to even loads


def warm(tokens: Tokens, task: Task, old: Placement, weights: Weights, moves: int) -> Placement:
    """`old` with at most `task.allowed` slots on other nodes, for less time of the layer; `old` where none is found.

    The search pays for each expert that a node has to fetch. The least price that keeps the budget is looked for, and
    what it leaves of the budget is used up downhill.
    """
    held = np.bincount(old.slot_expert, minlength=task.experts)
    count = near_counts(tokens.load, held, task.slots, task.grid.gpus)
    noise = NOISE * tokens.ids.size / task.slots

    def found(start: Placement, stay: Stay, dearer: float, moves: int) -> Placement:
        stay = replace(stay, price=task.fetch + noise * dearer)
        made = joint(
            tokens, task.slots, task.grid, start, weights, moves, task.seed, HEAT, linked=task.per_batch, stay=stay
        )
        return align(made, old, task.experts, task.grid)

    free = Stay(old, count, served(tokens, np.repeat(np.arange(count.size), count)), MANY, 0.0)
    best, price, tried = old, 1.0, [1.0, DEAREST]
    for _ in range(TRIES):
        made = found(old, free, price, moves // (2 * TRIES))
        afforded = task.affords(made, old)
        if afforded:
            best, tried[1] = made, price
        if price == 1.0 and afforded:
            break
        tried[0] = tried[0] if afforded else price
        price = (tried[0] * tried[1]) ** 0.5
    if best is old and old.slots != task.slots:
        return old
    last = replace(free, fetches=task.allowed)
    if best is old:
        last = replace(last, count=held, items=served(tokens, np.repeat(np.arange(held.size), held)))
    made = found(best, last, 1.0 if best is old else tried[1], moves // 2)
    return made if task.affords(made, old) else best


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
