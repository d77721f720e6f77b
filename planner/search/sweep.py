"""Price every legal candidate, keep the best and the frontier.

Layer costs depend on (tp, cp, ep, etp, micro_batch) alone: they are computed once per such point and taken for each
candidate. Candidates go through in chunks that fit the cache: memory first, time for those that fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from planner.estimate import Unit, memories, peak, priced, take, units
from planner.layout import Layout, layout, stack
from planner.rules import Case
from planner.search.pareto import best, frontier
from planner.search.space import Rows, Space, Tally, combinations, inner_grid, outer_rows
from planner.setting import Setting
from planner.strategy import Choices, Degrees

CHUNK = 65536
WORKERS = 2  # threads; numpy gives up the interpreter lock inside its loops
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """Candidates: step time [s], peak memory [B], number of the choices, degrees; arrays [n]."""

    time: Floats
    peak: Floats
    choice: Ints
    degrees: Degrees

    def take(self, index: Ints) -> Found:
        """The candidates at `index`."""
        return Found(self.time[index], self.peak[index], self.choice[index], self.degrees.take(index))


@dataclass(frozen=True)
class Sweep:
    """The outcome: `best` and `frontier` of the candidates that fit, `leanest` the least memory of all legal ones."""

    best: Found
    frontier: Found
    leanest: Found
    choices: list[Choices]
    legal: int
    fitting: int
    tally: Tally


@dataclass(frozen=True)
class Task:
    """One chunk of candidates that share their choices."""

    number: int
    setting: Setting
    costs: tuple[Unit, ...]
    layouts: Layouts
    rows: Rows
    part: slice


@dataclass(frozen=True)
class Priced:
    """The outcome of one chunk: as `Sweep`, with the numbers of legal and of fitting candidates."""

    best: Found
    frontier: Found
    leanest: Found
    legal: int
    fitting: int


class Layouts:
    """The layouts of all (pp, vpp) of a set of rows, gathered per chunk."""

    def __init__(self, setting: Setting, rows: Rows) -> None:
        """Lay out each distinct (pp, vpp) once."""
        depth = int(np.max(rows.degrees.vpp, initial=0)) + 1
        key = np.asarray(rows.degrees.pp) * depth + np.asarray(rows.degrees.vpp)
        pairs = np.flatnonzero(np.bincount(key))
        self.index = np.searchsorted(pairs, key)
        seq_len = setting.workload.seq_len
        self.table = [layout(setting.model, seq_len, int(pair) // depth, int(pair) % depth) for pair in pairs]

    def of(self, part: slice | Ints) -> Layout:
        """The layouts of some rows as one batch."""
        return stack(self.table, self.index[part])


def sweep(case: Case, setting: Setting, space: Space, objective: str, top: int, limit: float) -> Sweep:
    """Price the whole of `space`; of what needs at most `limit` [B], keep the `top` by `objective` and the frontier."""
    tally = Tally()
    choices = combinations(space, setting.choices)
    with ThreadPoolExecutor(WORKERS) as pool:  # pricing starts while the space is still being laid out
        tasks = _tasks(case, setting, space, choices, tally)
        results = [future.result() for future in [pool.submit(_price, task, objective, top, limit) for task in tasks]]
    good = _concatenate([result.best for result in results])
    front = _concatenate([result.frontier for result in results])
    lean = _concatenate([result.leanest for result in results])
    return Sweep(
        good.take(_ranked(good, objective, top)),
        front.take(frontier(front.time, front.peak)),
        lean.take(best(lean.peak, lean.peak, 1)),
        choices,
        sum(result.legal for result in results),
        sum(result.fitting for result in results),
        tally,
    )


def _tasks(case: Case, setting: Setting, space: Space, choices: list[Choices], tally: Tally) -> Iterator[Task]:
    """The chunks of the whole space; layer costs and rows are shared by the choices that they do not depend on."""
    rows, inner, index = inner_grid(case, space, tally)
    costs: dict[str, tuple[Unit, ...]] = {}
    outer: dict[tuple[str, str, bool], tuple[Rows, Layouts]] = {}
    for number, choice in enumerate(choices):
        here = replace(setting, choices=choice)
        key = (choice.schedule, choice.order, choice.zero > 0)
        if key not in outer:
            found = outer_rows(replace(case, choices=choice), space, rows, index, tally)
            outer[key] = (found, Layouts(here, found))
        if choice.recompute not in costs:
            costs[choice.recompute] = units(here, inner)
        found, layouts = outer[key]
        for start in range(0, len(found), CHUNK):
            yield Task(number, here, costs[choice.recompute], layouts, found, slice(start, start + CHUNK))


def _price(task: Task, objective: str, top: int, limit: float) -> Priced:
    """Price one chunk: memory of all, time of those that fit."""
    everyone = np.arange(task.part.start, min(task.part.stop, len(task.rows)))
    degrees = task.rows.degrees.take(everyone)
    parts = take(task.costs, task.rows.unit[everyone])
    shapes = task.layouts.of(everyone)
    used = np.asarray(peak(memories(parts, shapes, task.setting, degrees)))
    leanest = np.argmin(used, keepdims=True)
    lean = Found(np.full(1, np.nan), used[leanest], np.full(1, task.number), degrees.take(leanest))
    fits = np.flatnonzero(used <= limit)
    if len(fits) < len(used):
        degrees, parts, shapes, used = degrees.take(fits), take(parts, fits), take(shapes, fits), used[fits]
    time = np.asarray(priced(parts, shapes, task.setting, degrees).total)
    found = Found(time, used, np.full(len(time), task.number), degrees)
    good, front = found.take(_ranked(found, objective, top)), found.take(frontier(time, used))
    return Priced(good, front, lean, len(everyone), len(fits))


def _ranked(found: Found, objective: str, top: int) -> Ints:
    first, second = (found.peak, found.time) if objective == "memory" else (found.time, found.peak)
    return best(first, second, top)


def _concatenate(pieces: list[Found]) -> Found:
    """All pieces as one; empty when there are none."""
    if not pieces:
        nothing = np.zeros(0)
        return Found(nothing, nothing, nothing.astype(np.int64), Degrees(*(nothing.astype(np.int64),) * 9))
    columns = {
        f.name: np.concatenate([np.broadcast_to(getattr(p.degrees, f.name), p.time.shape) for p in pieces])
        for f in fields(Degrees)
    }
    return Found(
        np.concatenate([p.time for p in pieces]),
        np.concatenate([p.peak for p in pieces]),
        np.concatenate([p.choice for p in pieces]),
        Degrees(**columns),
    )
