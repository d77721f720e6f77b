"""How many replicas each expert gets, and how items are packed on GPUs: balance alone, fast."""

from __future__ import annotations

import heapq

import numpy as np

from planner.placement.base import Floats, Ints


def replica_counts(load: Floats, slots: int, most: int) -> Ints:
    """Replicas of each expert [experts] for the least largest load per replica; `slots` in all, at most `most` each.

    Giving each next slot to the expert with the largest load per replica is optimal for that aim.
    """
    count = np.ones(load.size, dtype=np.int64)
    rest = slots - load.size
    # all but the last few slots at once: no expert needs more than its load over the bound
    if rest > 0 and load.sum() > 0:
        level = bound_level(load, slots)
        count = np.clip(np.floor(load / level - 1e-9).astype(np.int64), 1, most)
        rest = slots - int(count.sum())
    heap = [(-load[e] / count[e], int(e)) for e in range(load.size) if count[e] < most]
    heapq.heapify(heap)
    while rest > 0 and heap:
        _, e = heapq.heappop(heap)
        count[e] += 1
        rest -= 1
        if count[e] < most:
            heapq.heappush(heap, (-load[e] / count[e], e))
    return count


def bound_level(load: Floats, slots: int) -> float:
    """The least L for which every expert fits in replicas of load L each: Σ ceil(load / L) <= slots."""
    low, high = load.sum() / slots, float(load.max())
    for _ in range(60):
        middle = 0.5 * (low + high)
        fits = np.maximum(np.ceil(load / middle - 1e-12), 1).sum() <= slots
        low, high = (low, middle) if fits else (middle, high)
    return high


def pack(item_load: Floats, item_expert: Ints, room: Ints) -> Ints:
    """The bin of each item [items], bins with `room` [bins] slots: heaviest first to the emptiest, then best swaps.

    No bin gets two items of one expert where `room` is even and no expert has more items than bins.
    """
    bins = room.size
    order = np.argsort(-item_load, kind="stable")
    held: list[set[int]] = [set() for _ in range(bins)]
    fill, left = np.zeros(bins), room.astype(np.int64).copy()
    place = np.empty(item_load.size, dtype=np.int64)
    heap = [(0.0, b) for b in range(bins) if left[b]]
    for item in order:
        skipped = []
        while True:
            entry = heapq.heappop(heap)
            if int(item_expert[item]) not in held[entry[1]] or not heap:
                break
            skipped.append(entry)
        for each in skipped:
            heapq.heappush(heap, each)
        b = entry[1]
        place[item] = b
        fill[b] += item_load[item]
        held[b].add(int(item_expert[item]))
        left[b] -= 1
        if left[b]:
            heapq.heappush(heap, (float(fill[b]), b))
    return improve(item_load, item_expert, apart(item_load, item_expert, place, bins), bins)


def apart(item_load: Floats, item_expert: Ints, place: Ints, bins: int) -> Ints:
    """`place` with the second item of an expert in a bin swapped out, for the least full of the two bins."""
    place = place.copy()
    present = np.zeros((bins, int(item_expert.max()) + 1), dtype=np.int64)
    np.add.at(present, (place, item_expert), 1)
    fill = np.bincount(place, weights=item_load, minlength=bins).astype(np.float64)
    for item in np.flatnonzero(present[place, item_expert] > 1):
        e, b = item_expert[item], place[item]
        if present[b, e] < 2:
            continue
        fit = np.flatnonzero((present[place, e] == 0) & (present[b, item_expert] == 0))
        if not fit.size:
            continue
        change = item_load[item] - item_load[fit]
        other = fit[np.maximum(fill[b] - change, fill[place[fit]] + change).argmin()]
        _trade(int(item), int(other), place, fill, present, item_load, item_expert)
    return place


def _trade(
    one: int, other: int, place: Ints, fill: Floats, present: Ints, item_load: Floats, item_expert: Ints
) -> None:
    """Two items change bins, in the books too."""
    a, b = place[one], place[other]
    for item, old, new in ((one, a, b), (other, b, a)):
        present[old, item_expert[item]] -= 1
        present[new, item_expert[item]] += 1
        fill[old] -= item_load[item]
        fill[new] += item_load[item]
        place[item] = new


def improve(item_load: Floats, item_expert: Ints, place: Ints, bins: int, rounds: int = 200) -> Ints:
    """Swap an item of the fullest bin with one elsewhere while that lowers the fuller of the two."""
    place = place.copy()
    fill = np.bincount(place, weights=item_load, minlength=bins).astype(np.float64)
    present = np.zeros((bins, int(item_expert.max()) + 1), dtype=np.int64)
    np.add.at(present, (place, item_expert), 1)
    for _ in range(rounds):
        full = int(fill.argmax())
        mine = np.flatnonzero(place == full)
        others = np.flatnonzero(place != full)
        if not mine.size or not others.size:
            break
        change = item_load[mine][:, None] - item_load[others][None, :]  # what leaves the fullest bin
        after = np.maximum(fill[full] - change, fill[place[others]][None, :] + change)
        clash = (present[full][item_expert[others]] > 0)[None, :] | (present[place[others]][:, item_expert[mine]].T > 0)
        after = np.where(clash | (change <= 0), np.inf, after)
        best = int(after.argmin())
        if not after.flat[best] < fill[full] * (1 - 1e-9):
            break
        one, other = int(mine[best // others.size]), int(others[best % others.size])
        _trade(one, other, place, fill, present, item_load, item_expert)
    return place
