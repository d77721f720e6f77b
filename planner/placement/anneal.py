"""Local search over which items (replicas of experts) stand on which node, on exact counts of distinct nodes.

Energy = nodes visited, summed over tokens + visits · Σ over nodes of what its visits exceed the mean by
       + load · Σ over nodes of what its load exceeds the mean by + keep · items on nodes that have to fetch them.
A move swaps two items; its energy follows from the tokens of the two items alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.placement.base import Ints

MANY = 2**62  # no limit


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
    a node. `home` [nodes, experts]: nodes that need not fetch an expert (None: where the search starts); `fetches` may
    be needed at most, where the start needs no more.
    """

    items: Ints
    expert: Ints
    nodes: int
    copies: int
    home: NDArray[np.bool_] | None = None
    fetches: int = MANY


@dataclass(frozen=True)
class Weights:
    """Weight of the overload of `visits` and of `load`, and of an item that has to be fetched, in visited nodes."""

    visits: float
    load: float
    keep: float = 0.0


class Books(NamedTuple):
    """What a search keeps up to date."""

    place: Any  # [items] the node of each
    count: Any  # [tokens, nodes] of a token's choices that a node serves
    visits: Any  # [nodes] tokens that visit it
    load: Any  # [nodes]
    present: Any  # [nodes, experts] items of an expert


class Frame(NamedTuple):
    """What a search never changes."""

    begin: Any  # [items + 1] where an item's tokens begin in `visitors`
    visitors: Any
    expert: Any  # [items]
    home: Any  # [nodes, experts]
    copies: int
    fetches: int


def anneal(problem: Problem, start: Ints, weights: Weights, moves: int, seed: int, heat: float = 1.0) -> Ints:
    """The node of each item [items] after `moves` trial swaps from `start`; `heat` 0 only goes downhill."""
    tokens, topk = problem.items.shape
    flat, items = problem.items.ravel(), problem.expert.size
    order = np.argsort(flat, kind="stable")
    begin = np.searchsorted(flat[order], np.arange(items + 1)).astype(np.int64)
    cell = np.repeat(np.arange(tokens), topk) * problem.nodes + start[flat]
    count = np.bincount(cell, minlength=tokens * problem.nodes).reshape(tokens, problem.nodes)
    count = count.astype(np.int8 if topk < 127 else np.int16)
    present = np.zeros((problem.nodes, int(problem.expert.max()) + 1), dtype=np.int64)
    np.add.at(present, (start, problem.expert), 1)
    home = present > 0 if problem.home is None else problem.home
    visitors = (order // topk).astype(np.int32)
    frame = Frame(begin, visitors, problem.expert.astype(np.int64), home, problem.copies, problem.fetches)
    load = np.bincount(start, weights=np.diff(begin), minlength=problem.nodes).astype(np.float64)
    books = Books(start.astype(np.int64), count, (count > 0).sum(axis=0).astype(np.float64), load, present)
    rng = np.random.default_rng(seed)
    cooling = 0.05 * heat * flat.size / items * (1.0 - np.arange(moves) / max(moves, 1)) ** 3
    pairs, luck = rng.integers(items, size=(moves, 2)), -np.log1p(-rng.random(moves)) * cooling
    return np.asarray(_search(frame, books, (weights.visits, weights.load, weights.keep), pairs, luck))


@njit(cache=True)
def _growth(frame: Frame, books: Books, i: int, j: int, seen: Any, mark: int) -> tuple[int, int]:
    """What visits to the nodes of i and of j grow by when the two trade; `seen` [tokens] marks the tokens of i."""
    a, b, count = books.place[i], books.place[j], books.count
    at_a = at_b = 0
    for k in range(frame.begin[i], frame.begin[i + 1]):
        t = frame.visitors[k]
        seen[t] = mark
        at_a -= count[t, a] == 1
        at_b += count[t, b] == 0
    for k in range(frame.begin[j], frame.begin[j + 1]):
        t = frame.visitors[k]
        if seen[t] == mark:  # a token of both: nothing changes for it
            at_a += count[t, a] == 1
        else:
            at_b -= count[t, b] == 1
            at_a += count[t, a] == 0
    return at_a, at_b


@njit(cache=True)
def _trade(frame: Frame, books: Books, i: int, j: int, at_a: int, at_b: int) -> None:
    """Items i and j trade nodes in the books."""
    a, b, count = books.place[i], books.place[j], books.count
    for k in range(frame.begin[i], frame.begin[i + 1]):
        count[frame.visitors[k], a] -= 1
        count[frame.visitors[k], b] += 1
    for k in range(frame.begin[j], frame.begin[j + 1]):
        count[frame.visitors[k], b] -= 1
        count[frame.visitors[k], a] += 1
    books.visits[a] += at_a
    books.visits[b] += at_b
    grown = (frame.begin[j + 1] - frame.begin[j]) - (frame.begin[i + 1] - frame.begin[i])
    books.load[a] += grown
    books.load[b] -= grown
    e, f = frame.expert[i], frame.expert[j]
    books.present[a, e] -= 1
    books.present[b, e] += 1
    books.present[b, f] -= 1
    books.present[a, f] += 1
    books.place[i], books.place[j] = b, a


@njit(cache=True)
def _over(values: Any, mean: float, a: int, b: int, at_a: float, at_b: float) -> float:
    """How far the values exceed their mean, summed, once those of a and b have grown by `at_a` and `at_b`."""
    total = 0.0
    for n in range(values.size):
        value = values[n]
        if n == a:
            value += at_a
        elif n == b:
            value += at_b
        if value > mean:
            total += value - mean
    return total


@njit(cache=True)
def _energy(
    books: Books, weights: tuple[float, float, float], a: int, b: int, growth: tuple[float, float, float]
) -> float:
    """Visits and overloads once nodes a and b have `growth` more visits each, and a that load more and b less."""
    total, nodes = books.visits.sum() + growth[0] + growth[1], books.visits.size
    energy = float(total)
    if weights[0] > 0.0:
        energy += weights[0] * _over(books.visits, total / nodes, a, b, growth[0], growth[1])
    return float(energy + weights[1] * _over(books.load, books.load.sum() / nodes, a, b, growth[2], -growth[2]))


@njit(cache=True)
def _search(frame: Frame, books: Books, weights: tuple[float, float, float], pairs: Any, luck: Any) -> Any:
    place, expert, home = books.place, frame.expert, frame.home
    kept, seen = place.copy(), np.full(books.count.shape[0], -1)
    fetches = 0
    for i in range(place.size):
        fetches += not home[place[i], expert[i]]
    energy = best = _energy(books, weights, 0, 0, (0.0, 0.0, 0.0)) + weights[2] * fetches
    for move in range(luck.size):
        i, j = pairs[move, 0], pairs[move, 1]
        a, b, e, f = place[i], place[j], expert[i], expert[j]
        if a == b or e == f or books.present[b, e] >= frame.copies or books.present[a, f] >= frame.copies:
            continue
        more = int(home[a, e]) - int(home[b, e]) + int(home[b, f]) - int(home[a, f])
        if more > 0 and fetches + more > frame.fetches:
            continue
        at_a, at_b = _growth(frame, books, i, j, seen, move)
        grown = float((frame.begin[j + 1] - frame.begin[j]) - (frame.begin[i + 1] - frame.begin[i]))
        after = _energy(books, weights, a, b, (float(at_a), float(at_b), grown)) + weights[2] * (fetches + more)
        if after - energy <= luck[move]:
            _trade(frame, books, i, j, at_a, at_b)
            energy = after
            fetches += more
            if energy < best:
                best = energy
                kept[:] = place
    return kept
