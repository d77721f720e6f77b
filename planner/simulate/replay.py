"""Discrete-event replay: runs the program of each rank action by action and tells when everything happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.schedules.base import Action, Kind, Program, Schedule

Durations = Mapping[Kind, NDArray[np.floating[Any]]]
_Key = tuple[Kind, int, int]  # kind, micro-batch, virtual stage


class DeadlockError(Exception):
    """The program can't go on: every unfinished rank waits for an action that no rank has reached."""


class Slot(NamedTuple):
    """One action that ran: on `rank`, from `start` to `end` [s]."""

    rank: int
    kind: Kind
    micro_batch: int
    chunk: int
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """A replayed step: `slots` by rank in order of time, `makespan` [s], per rank `busy` and `idle` [s].

    `in_flight` is the most micro-batches whose activations each rank held at once, in whole stages (chunks / vpp).
    """

    slots: tuple[Slot, ...]
    makespan: float
    busy: tuple[float, ...]
    idle: tuple[float, ...]
    in_flight: tuple[float, ...]


def replay(program: Program, durations: Durations, p2p: float = 0.0) -> Timeline:
    """Run `program` and time each action.

    An action starts when its rank is free and its inputs are there; a message between ranks takes `p2p` [s] and
    occupies neither of them. `durations` [s] has for each kind of action an array [pp, vpp] of one micro-batch on
    one chunk, or [pp, vpp, micro_batches] when micro-batches differ. Raises DeadlockError.
    """
    vpp = next(iter(durations.values())).shape[1]
    run = _Run(program, vpp, _by_micro_batch(durations, program), p2p, ran=[[] for _ in program])
    while sum(run.advance(rank) for rank in range(len(program))):  # not any(): every rank gets its turn
        pass
    if waits := run.waits():
        raise DeadlockError("the pipeline program deadlocks: " + "; ".join(waits))
    makespan = max(run.done.values(), default=0.0)
    busy = tuple(sum((slot.end - slot.start for slot in slots), 0.0) for slots in run.ran)
    return Timeline(
        slots=tuple(slot for slots in run.ran for slot in slots),
        makespan=makespan,
        busy=busy,
        idle=tuple(makespan - time for time in busy),
        in_flight=tuple(_most_held(actions) / vpp for actions in program),
    )


def stage_durations(schedule: Schedule, forward: NDArray[Any], backward: NDArray[Any]) -> Durations:
    """Durations for `replay` from the two passes [s] of one micro-batch on each chunk: [pp, vpp(, micro_batches)]."""
    if schedule.splits_backward:
        return {"F": forward, "B": backward / 2, "W": backward / 2}
    return {"F": forward, "B": backward}


@dataclass(frozen=True)
class _Run:
    """A replay under way: `ran` [rank] and `done` (end of each action) grow.

    `costs` [s] is [kind][rank][chunk][micro-batch].
    """

    program: Program
    vpp: int
    costs: Mapping[Kind, list[list[list[float]]]]
    p2p: float
    ran: list[list[Slot]]
    done: dict[_Key, float] = field(default_factory=dict)

    def advance(self, rank: int) -> bool:
        """Run a rank until an input is missing; True when it moved."""
        actions, slots, done, pp = self.program[rank], self.ran[rank], self.done, len(self.program)
        first = len(slots)
        clock = slots[-1].end if slots else 0.0
        for position in range(first, len(actions)):
            kind, i, chunk = actions[position]
            start = clock
            for key in self._inputs(rank, actions[position]):
                if key not in done:
                    return position > first
                arrival = done[key] + self.p2p if (key[2] - rank) % pp else done[key]
                start = max(start, arrival)
            clock = start + self.costs[kind][rank][chunk][i]
            done[kind, i, chunk * pp + rank] = clock
            slots.append(Slot(rank, kind, i, chunk, start, clock))
        return len(actions) > first

    def waits(self) -> list[str]:
        """Of each unfinished rank: its next action and the input that is missing."""
        return [
            self._wait(rank, actions[len(slots)])
            for rank, (actions, slots) in enumerate(zip(self.program, self.ran, strict=True))
            if len(slots) < len(actions)
        ]

    def _wait(self, rank: int, action: Action) -> str:
        kind, i, stage = next(key for key in self._inputs(rank, action) if key not in self.done)
        chunk, other = divmod(stage, len(self.program))
        here = f"{action.kind}(micro-batch {action.micro_batch}, chunk {action.chunk})"
        return f"rank {rank} at {here} waits for {kind}(micro-batch {i}, chunk {chunk}) of rank {other}"

    def _inputs(self, rank: int, action: Action) -> tuple[_Key, ...]:
        """The work that has to be done before `action`."""
        kind, i, chunk = action
        pp = len(self.program)
        stage = chunk * pp + rank
        if kind == "F":
            return (("F", i, stage - 1),) if stage else ()
        if kind == "W":
            return (("B", i, stage),)
        own: _Key = ("F", i, stage)
        return (own,) if stage == pp * self.vpp - 1 else (own, ("B", i, stage + 1))


def _by_micro_batch(durations: Durations, program: Program) -> dict[Kind, list[list[list[float]]]]:
    """Durations as nested lists with the axis of micro-batches, since a list is indexed faster than an array."""
    count = 1 + max((action.micro_batch for actions in program for action in actions), default=0)
    cubes = {
        kind: times if times.ndim == 3 else np.repeat(times[..., None], count, 2) for kind, times in durations.items()
    }
    return {kind: cube.tolist() for kind, cube in cubes.items()}


def _most_held(actions: list[Action]) -> int:
    """Peak of the chunks' activations a rank holds: from F to the last work on it, W where there is one, else B."""
    release = "W" if any(action.kind == "W" for action in actions) else "B"
    change = [(action.kind == "F") - (action.kind == release) for action in actions]
    return max(accumulate(change), default=0)
