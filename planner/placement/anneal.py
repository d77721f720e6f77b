"""Local search over which items (replicas of experts) stand on which node, on exact counts of distinct nodes.

Energy = nodes visited, summed over tokens + visits · Σ over nodes of what its visits exceed the mean by
       + load · Σ over nodes of what its load exceeds the mean by + keep · items away from their start.
A move swaps two items; its energy follows from the tokens of the two items alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.placement.base import Ints


def _as_it_is(**_options: bool) -> Any:
    """A decorator that leaves the function interpreted."""
    return lambda function: function


try:
    from numba import njit as njit  # noqa: PLC0414  for the other compiled loops here
except ImportError:  # correct without it, and some hundred times slower
    njit = _as_it_is  # type: ignore[assignment]


@dataclass(frozen=True)
class Problem:
    """Items and the tokens that visit them.

    `items` [tokens, topk] the item that serves each choice; `expert` [items]; `copies` items of one expert at most on
    a node.
    """

    items: Ints
    expert: Ints
    nodes: int
    copies: int


@dataclass(frozen=True)
class Weights:
    """Weight of the overload of `visits` and of `load`, and of an item away from its start, in visited nodes."""

    visits: float
    load: float
    keep: float = 0.0


def anneal(problem: Problem, start: Ints, weights: Weights, moves: int, seed: int, heat: float = 1.0) -> Ints:
    """The node of each item [items] after `moves` trial swaps from `start`; `heat` 0 only goes downhill."""
    tokens, topk = problem.items.shape
    flat, items = problem.items.ravel(), problem.expert.size
    order = np.argsort(flat, kind="stable")
    begin = np.searchsorted(flat[order], np.arange(items + 1)).astype(np.int64)
    count = np.zeros((tokens, problem.nodes), dtype=np.int16)
    np.add.at(count, (np.repeat(np.arange(tokens), topk), start[flat]), 1)
    present = np.zeros((problem.nodes, int(problem.expert.max()) + 1), dtype=np.int64)
    np.add.at(present, (start, problem.expert), 1)
    rng = np.random.default_rng(seed)
    cooling = 0.05 * heat * flat.size / items * (1.0 - np.arange(moves) / max(moves, 1)) ** 3
    return np.asarray(
        _search(
            begin,
            (order // topk).astype(np.int32),
            count,
            start.astype(np.int64),
            problem.expert.astype(np.int64),
            present,
            problem.copies,
            (weights.visits, weights.load, weights.keep),
            rng.integers(items, size=(moves, 2)),
            -np.log1p(-rng.random(moves)) * cooling,
        )
    )


@njit(cache=True)
def _shift(begin: Any, visitors: Any, count: Any, item: int, a: int, b: int) -> tuple[int, int]:
    """Move an item from node a to node b; what its tokens' visits to a and to b grow by."""
    at_a = at_b = 0
    for i in range(begin[item], begin[item + 1]):
        t = visitors[i]
        count[t, a] -= 1
        if count[t, a] == 0:
            at_a -= 1
        if count[t, b] == 0:
            at_b += 1
        count[t, b] += 1
    return at_a, at_b


@njit(cache=True)
def _over(values: Any) -> float:
    """How far the values exceed their mean, summed."""
    mean = values.sum() / values.size
    total = 0.0
    for value in values:
        if value > mean:
            total += value - mean
    return total


@njit(cache=True)
def _swap(place: Any, present: Any, expert: Any, i: int, j: int) -> None:
    """Items i and j trade nodes in the books."""
    a, b = place[i], place[j]
    place[i], place[j] = b, a
    present[a, expert[i]] -= 1
    present[b, expert[i]] += 1
    present[b, expert[j]] -= 1
    present[a, expert[j]] += 1


@njit(cache=True)
def _search(
    begin: Any,
    visitors: Any,
    count: Any,
    start: Any,
    expert: Any,
    present: Any,
    copies: int,
    weights: tuple[float, float, float],
    pairs: Any,
    luck: Any,
) -> Any:
    place, kept = start.copy(), start.copy()
    size = begin[1:] - begin[:-1]
    load, visits = np.zeros(count.shape[1]), np.zeros(count.shape[1])
    for i in range(place.size):
        load[place[i]] += size[i]
    for n in range(visits.size):
        visits[n] = (count[:, n] > 0).sum()
    energy = best = visits.sum() + weights[0] * _over(visits) + weights[1] * _over(load)
    strays = 0
    for move in range(luck.size):
        i, j = pairs[move, 0], pairs[move, 1]
        a, b = place[i], place[j]
        full = present[b, expert[i]] >= copies or present[a, expert[j]] >= copies
        if a == b or expert[i] == expert[j] or full:
            continue
        i_at_a, i_at_b = _shift(begin, visitors, count, i, a, b)
        j_at_b, j_at_a = _shift(begin, visitors, count, j, b, a)
        stray = int(b != start[i]) - int(a != start[i]) + int(a != start[j]) - int(b != start[j])
        visits[a] += i_at_a + j_at_a
        visits[b] += i_at_b + j_at_b
        load[a] += size[j] - size[i]
        load[b] += size[i] - size[j]
        after = visits.sum() + weights[0] * _over(visits) + weights[1] * _over(load) + weights[2] * (strays + stray)
        if after - energy <= luck[move]:
            energy = after
            strays += stray
            _swap(place, present, expert, i, j)
            if energy < best:
                best = energy
                kept[:] = place
        else:
            _shift(begin, visitors, count, i, b, a)
            _shift(begin, visitors, count, j, a, b)
            visits[a] -= i_at_a + j_at_a
            visits[b] -= i_at_b + j_at_b
            load[a] -= size[j] - size[i]
            load[b] -= size[i] - size[j]
    return kept
