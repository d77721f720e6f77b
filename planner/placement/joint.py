"""A placement planned for a layer: items, their nodes by search, their GPUs by packing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.placement.anneal import Problem, Weights, anneal
from planner.placement.base import Floats, Grid, Ints, Placement, even
from planner.placement.evaluate import serve
from planner.placement.replicas import pack, replica_counts

SAMPLE = 16_384  # planning tokens that the search looks at; more change the outcome less than a new seed


@dataclass(frozen=True)
class Tokens:
    """Planning tokens of one layer: `ids` [tokens, topk] and `load` [experts] of all of them."""

    ids: Ints
    load: Floats


@dataclass(frozen=True)
class Stay:
    """What a search from a placement in force keeps to: `count` replicas of each expert [experts], at most `fetches`
    experts on nodes that have to fetch them, each at a `price` in visited nodes. `items` as `served` by these replicas.
    """

    old: Placement
    count: Ints
    items: Ints
    fetches: int
    price: float


def tokens_of(ids: Ints, experts: int, seed: int) -> Tokens:
    """At most `SAMPLE` of the tokens for the search, the loads of all."""
    load = np.bincount(ids.ravel(), minlength=experts).astype(float)
    if ids.shape[0] > SAMPLE:
        ids = ids[np.sort(np.random.default_rng(seed).choice(ids.shape[0], SAMPLE, replace=False))]
    return Tokens(ids, load)


def items_of(tokens: Tokens, slots: int, grid: Grid) -> Ints:
    """The expert of each item [slots]: replicas for the least load per replica."""
    count = replica_counts(tokens.load, slots, grid.gpus)
    return np.repeat(np.arange(count.size), count)


def served(tokens: Tokens, expert: Ints) -> Ints:
    """The item that serves each choice [tokens, topk] when those of an expert (`expert` [items]) take turns."""
    return serve(even(expert, np.arange(expert.size)), tokens.ids, tokens.load.size)


def balanced(tokens: Tokens, slots: int, grid: Grid) -> Placement:
    """Loads alone: replicas packed on GPUs, the network ignored."""
    expert = items_of(tokens, slots, grid)
    load = _item_load(expert, tokens.load)
    gpu = pack(load, expert, np.bincount(grid.slots(expert.size), minlength=grid.gpus))
    return ordered(expert, gpu)


def start_nodes(placement: Placement, expert: Ints, load: Floats, grid: Grid) -> Ints:
    """The node of each item, as in `placement` where it holds as many replicas, the rest packed where there is room."""
    room = np.bincount(grid.slots(expert.size) // grid.gpus_per_node, minlength=grid.nodes)
    node = np.full(expert.size, -1, dtype=np.int64)
    where: dict[int, list[int]] = {}
    for e, g in zip(placement.slot_expert, placement.slot_gpu, strict=True):
        where.setdefault(int(e), []).append(int(g) // grid.gpus_per_node)
    for item, e in enumerate(expert):
        spots = where.get(int(e), [])
        if spots and room[spots[0]] > 0:
            node[item] = spots.pop(0)
            room[node[item]] -= 1
    rest = np.flatnonzero(node < 0)
    if rest.size:
        fill = np.bincount(node[node >= 0], weights=load[node >= 0], minlength=grid.nodes)
        for item in rest[np.argsort(-load[rest], kind="stable")]:
            n = int(np.where(room > 0, fill, np.inf).argmin())
            node[item], fill[n] = n, fill[n] + load[item]
            room[n] -= 1
    return node


def joint(
    tokens: Tokens,
    slots: int,
    grid: Grid,
    start: Placement,
    weights: Weights,
    moves: int,
    seed: int,
    heat: float = 1.0,
    *,
    linked: bool = False,
    stay: Stay | None = None,
) -> Placement:
    """Search from `start` for few nodes per token and even loads.

    `linked`: replicas stand on different nodes and every GPU gets one if it can, so that a dispatcher that splits
    tokens per batch can level all loads. `stay`: a placement in force, and what leaving it costs.
    """
    expert = items_of(tokens, slots, grid) if stay is None else np.repeat(np.arange(stay.count.size), stay.count)
    load = _item_load(expert, tokens.load)
    node = start_nodes(start, expert, load, grid)
    if grid.nodes > 1:
        items = served(tokens, expert) if stay is None else stay.items
        apart = -(-int(np.bincount(expert).max()) // grid.nodes)  # as far from each other as they can stand
        problem = Problem(items, expert, grid.nodes, apart if linked else grid.gpus_per_node)
        if stay is not None:
            problem = replace(problem, home=_held(stay.old, expert, grid), fetches=stay.fetches)
            weights = replace(weights, keep=stay.price)
        node = anneal(problem, node, weights, moves, seed, heat)
    gpu = _gpus(node, load, expert, grid)
    return ordered(expert, _linked(gpu, load, expert, grid) if linked else gpu)


def _held(placement: Placement, expert: Ints, grid: Grid) -> NDArray[np.bool_]:
    """Which node holds which expert [nodes, experts]."""
    found = np.zeros((grid.nodes, int(expert.max()) + 1), dtype=bool)
    found[placement.slot_gpu // grid.gpus_per_node, placement.slot_expert] = True
    return found


def _gpus(node: Ints, load: Floats, expert: Ints, grid: Grid) -> Ints:
    """The GPU of each item: those of a node packed on its GPUs."""
    room = np.bincount(grid.slots(expert.size), minlength=grid.gpus)
    gpu = np.empty(expert.size, dtype=np.int64)
    for n in range(grid.nodes):
        mine = np.flatnonzero(node == n)
        first = n * grid.gpus_per_node
        gpu[mine] = first + pack(load[mine], expert[mine], room[first : first + grid.gpus_per_node])
    return gpu


def _linked(gpu: Ints, load: Floats, expert: Ints, grid: Grid) -> Ints:
    """`gpu` after swaps inside nodes that give GPUs without a replicated expert one of the GPU with most of them."""
    gpu, several = gpu.copy(), np.bincount(expert)[expert] > 1
    for bare in np.flatnonzero(np.bincount(gpu, weights=several, minlength=grid.gpus) == 0):
        count = np.bincount(gpu, weights=several, minlength=grid.gpus)
        count[np.arange(grid.gpus) // grid.gpus_per_node != bare // grid.gpus_per_node] = 0
        rich = int(count.argmax())
        mine = np.flatnonzero(gpu == bare)
        theirs = np.flatnonzero((gpu == rich) & several & ~np.isin(expert, expert[mine]))
        if count[rich] < 2 or not mine.size or not theirs.size:
            continue
        best = int(np.abs(load[mine][:, None] - load[theirs][None, :]).argmin())
        a, b = mine[best // theirs.size], theirs[best % theirs.size]
        gpu[a], gpu[b] = rich, bare
    return gpu


def ordered(expert: Ints, gpu: Ints) -> Placement:
    """The placement with its slots in order of GPU."""
    order = np.lexsort((expert, gpu))
    return even(expert[order], gpu[order])


def _item_load(expert: Ints, load: Floats) -> Floats:
    return np.asarray(load / np.maximum(np.bincount(expert, minlength=load.size), 1))[expert]
