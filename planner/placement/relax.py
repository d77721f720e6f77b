"""How few nodes tokens can visit when every item stands on one node: a certified bound by convex relaxation.

x[i, j] = 1 where items i and j share a node. A token that finds y of its items beside i counts 1/(1 + y) for i, so
visits = Σ φ(y), y linear in x, φ the convex hull of 1/(1 + y). Placements obey more than is asked of x here: each row
fills a node's slots and carries its load at most (K2), and x has eigenvalues between 0 and a node's slots, as many of
the largest as nodes (K1, after Donath and Hoffman 1973). Slopes s of φ and multipliers m of "x in K1 is x in K2" give

    visits >= -Σ φ*(s) + min over K1 of <m, x> + min over K2 of <G(s) - m, x>

for whatever s and m, where both minima are exact sums. A primal-dual method (Pock and Chambolle 2011) finds good ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.placement.anneal import njit
from planner.placement.base import Floats, Ints

ROUNDS, FINAL = 80, 40  # of the method; of the search for the multipliers of loads in the certificate
HALVINGS = 25
LARGEST = 512  # items; above, eigenvalues take too long and K1 is left out


@dataclass(frozen=True)
class Rooms:
    """Slots of the smallest and the largest of `nodes` nodes, and the load that a node may have (inf: any)."""

    nodes: int
    least: int
    most: int
    cap: float


def visits_bound(items: Ints, number: int, rooms: Rooms, rounds: int = ROUNDS) -> float:
    """Least mean number of distinct nodes per token; `items` [tokens, topk] of `number`, each on one node.

    Holds for every way to put the items on nodes with `rooms`, loads counted as tokens of `items`.
    """
    tokens, topk = items.shape
    if topk == 1 or rooms.nodes == 1:
        return 1.0
    load = np.bincount(items.ravel(), minlength=number).astype(np.float64)
    value = 1.0 / np.arange(1, topk + 1)
    slope = np.append(np.diff(value), 0.0)
    shared = _pairs(items, number)
    weight = max(float(shared.sum()) / number**2, 1e-3)  # of x in K1 = x in K2: as much as a typical pair
    step = 1.0 / (shared + weight)
    spectral = number <= LARGEST
    rounds = rounds if spectral else max(rounds // 4, 1)
    one = np.full((number, number), rooms.most / number)
    two = one.copy()
    slopes, m = np.full(items.shape, slope[0]), np.zeros((number, number))
    fee = np.zeros(number)
    mean_m, mean_slopes, averaged = np.zeros_like(m), np.zeros_like(slopes), 0
    ahead_one, ahead_two = one, two
    best = 1.0
    for turn in range(rounds):
        pushed = _push(items, ahead_two, slopes, slope, 1.0 / (topk - 1))
        if spectral:
            m = m + 0.5 * weight * (ahead_one - ahead_two)
            new = _spectral(one - m / weight, rooms)
            ahead_one, one = 2.0 * new - one, new
        new = _filled(two - step * (pushed - m), step, load, fee, rooms.least - 1, rooms.most - 1, rooms.cap)
        ahead_two, two = 2.0 * new - two, new
        if turn >= rounds // 2:
            mean_m, mean_slopes, averaged = mean_m + m, mean_slopes + slopes, averaged + 1
    for found, multipliers in ((slopes, m), (mean_slopes / averaged, mean_m / averaged)):
        best = max(best, _certificate(items, value, found, multipliers, load, rooms, spectral=spectral) / tokens)
    return best


def _pairs(items: Ints, number: int) -> Floats:
    """Tokens that visit both of two items [number, number]; nothing on the diagonal."""
    found = np.zeros(number * number)
    for a in range(items.shape[1]):
        for b in range(items.shape[1]):
            if a != b:
                found += np.bincount(items[:, a] * number + items[:, b], minlength=number * number)
    return np.asarray(found.reshape(number, number))


def _certificate(
    items: Ints, value: Floats, slopes: Floats, m: Floats, load: Floats, rooms: Rooms, *, spectral: bool
) -> float:
    """The bound that slopes and multipliers prove, in visits of all tokens."""
    number = load.size
    hull = (slopes[:, :, None] * np.arange(value.size) - value).max(axis=2)
    rows = _linear(items, slopes, number) - m
    total = -float(hull.sum()) + float(_row_minima(rows, load, rooms).sum())
    if not spectral:
        return total
    symmetric = 0.5 * (m + m.T)
    slack = 1e-10 * float(np.abs(symmetric).sum())  # of rounding in the eigenvalues
    if rooms.least == rooms.most:
        total += rooms.most * float(symmetric.sum()) / number
        symmetric = _without_ones(symmetric)
        eigen = np.delete(np.linalg.eigvalsh(symmetric), 0)
        return total + rooms.most * float(eigen[: rooms.nodes - 1].sum()) - slack
    eigen = np.linalg.eigvalsh(symmetric)
    full, rest = divmod(number, rooms.most)
    return total + rooms.most * float(eigen[:full].sum()) + rest * float(eigen[min(full, number - 1)]) - slack


def _without_ones(symmetric: Floats) -> Floats:
    """The matrix across the vector of ones, which gets an eigenvalue below all others."""
    row = symmetric.mean(axis=1)
    inside = symmetric - row[:, None] - row[None, :] + row.mean()
    return np.asarray(inside - (2.0 * float(np.abs(inside).sum(axis=1).max()) + 1.0) / symmetric.shape[0])


def _spectral(x: Floats, rooms: Rooms) -> Floats:
    """The nearest symmetric matrix in K1."""
    number = x.shape[0]
    x = 0.5 * (x + x.T)
    even = rooms.least == rooms.most
    value, vector = np.linalg.eigh(_without_ones(x) if even else x)
    if even:
        value, vector = value[1:], vector[:, 1:]
    total = number - (rooms.most if even else 0)
    low, high = float(value.min()) - rooms.most, float(value.max())
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.clip(value - middle, 0.0, rooms.most).sum() > total else (low, middle)
    kept = np.clip(value - high, 0.0, rooms.most)
    some = kept > 0.0
    made = (vector[:, some] * kept[some]) @ vector[:, some].T
    return np.asarray(made + (rooms.most / number if even else 0.0))


def _row_minima(rows: Floats, load: Floats, rooms: Rooms) -> Floats:
    """min <rows[i], x[i]> over K2 [number], by the best multiplier of the load found: each is a valid one."""
    number = load.size
    diagonal = np.diagonal(rows).copy()
    rest = rows.copy()
    np.fill_diagonal(rest, np.inf)

    def least(fee: Floats) -> Floats:
        cost = np.sort(rest + fee[:, None] * load[None, :], axis=1)[:, : rooms.most - 1]
        must, may = cost[:, : rooms.least - 1], cost[:, rooms.least - 1 :]
        found = must.sum(axis=1) + np.minimum(may, 0.0).sum(axis=1)
        return np.asarray(found - fee * (rooms.cap - load if np.isfinite(rooms.cap) else 0.0))

    if rooms.most == 1:
        return diagonal
    best = least(np.zeros(number))
    if np.isfinite(rooms.cap):
        low, high = np.zeros(number), np.full(number, 4.0 * float(np.abs(rows).max()) / max(float(load.mean()), 1e-9))
        golden = 0.5 * (5.0**0.5 - 1.0)
        for _ in range(FINAL):
            one, two = high - golden * (high - low), low + golden * (high - low)
            at_one, at_two = least(one), least(two)
            best = np.maximum(best, np.maximum(at_one, at_two))
            low, high = np.where(at_one < at_two, one, low), np.where(at_one < at_two, high, two)
    return np.asarray(best + diagonal)


@njit(cache=True)
def _push(items: Any, x: Any, slopes: Any, slope: Any, step: float) -> Any:
    """One step of the slopes [tokens, topk], in place; their sum on each pair of items [number, number]."""
    tokens, topk = items.shape
    found = np.zeros(x.shape)
    for t in range(tokens):
        for k in range(topk):
            i = items[t, k]
            together = 0.0
            for other in range(topk):
                if other != k:
                    together += x[i, items[t, other]]
            raw = slopes[t, k] + step * together
            new = slope[topk - 1]
            for h in range(topk):
                if raw - step * h <= slope[h]:
                    new = max(raw - step * h, slope[max(h - 1, 0)])
                    break
            slopes[t, k] = new
            for other in range(topk):
                if other != k:
                    found[i, items[t, other]] += new
    return found


@njit(cache=True)
def _linear(items: Any, slopes: Any, number: int) -> Any:
    """The sum of slopes on each pair of items [number, number]."""
    found = np.zeros((number, number))
    for t in range(items.shape[0]):
        for k in range(items.shape[1]):
            for other in range(items.shape[1]):
                if other != k:
                    found[items[t, k], items[t, other]] += slopes[t, k]
    return found


@njit(cache=True)
def _filled(x: Any, step: Any, load: Any, fee: Any, least: int, most: int, cap: float) -> Any:
    """About the nearest matrix in K2, in the metric of the steps; `fee` [number] of loads goes on from call to call.

    Only the direction of the search depends on it, no bound does.
    """
    number = load.size
    found = np.zeros((number, number))
    for i in range(number):
        toll = 0.0
        for _ in range(1 if np.isinf(cap) else 3):
            toll = _toll(x[i], step[i], load, fee[i], i, least, most)
            if not np.isinf(cap):
                fee[i] = _fee(x[i], step[i], load, toll, i, cap)
        for j in range(number):
            if j != i:
                found[i, j] = min(max(x[i, j] - step[i, j] * (toll + fee[i] * load[j]), 0.0), 1.0)
        found[i, i] = 1.0
    return found


@njit(cache=True)
def _toll(x: Any, step: Any, load: Any, fee: float, i: int, least: int, most: int) -> float:
    """What a place in a row costs so that it holds between `least` and `most` items."""
    low, high = 0.0, 0.0  # where all items are in, and where none is
    for j in range(load.size):
        high = max(high, x[j] / step[j])
        low = min(low, (x[j] - 1.0) / step[j] - fee * load[j])
    held = _held(x, step, load, 0.0, fee, i, 0)
    if least <= held <= most:
        return 0.0
    wanted = most if held > most else least
    low, high = (0.0, high) if held > most else (low, 0.0)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if _held(x, step, load, middle, fee, i, 0) > wanted:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@njit(cache=True)
def _fee(x: Any, step: Any, load: Any, toll: float, i: int, cap: float) -> float:
    """What a unit of load costs so that a row carries `cap` at most."""
    if _held(x, step, load, toll, 0.0, i, 1) + load[i] <= cap:
        return 0.0
    low, high = 0.0, 0.0
    for j in range(load.size):
        if load[j] > 0.0:
            high = max(high, (x[j] / step[j] - toll) / load[j])
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if _held(x, step, load, toll, middle, i, 1) + load[i] > cap:
            low = middle
        else:
            high = middle
    return high


@njit(cache=True)
def _held(x: Any, step: Any, load: Any, toll: float, fee: float, i: int, weighed: int) -> float:
    """Items of a row, or their load where `weighed`."""
    total = 0.0
    for j in range(load.size):
        if j != i:
            part = min(max(x[j] - step[j] * (toll + fee * load[j]), 0.0), 1.0)
            total += part * load[j] if weighed else part
    return total
