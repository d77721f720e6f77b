"""A pipeline schedule: its closed forms, the degrees it allows, and the program that every rank runs.

Each schedule is one file with one final class; `planner.schedules` finds them. Numbers are one plan or a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from planner.formula import Count, Num, formula

Kind = Literal["F", "B", "W"]


class Action(NamedTuple):
    """What a rank does next: `kind` of work on one micro-batch in its model chunk `chunk`.

    Chunk c of rank r is virtual stage c · pp + r, in order of depth. F is the forward pass, B the backward pass. Where
    a program also has W, B is only the gradient of the input and W that of the weights.
    """

    kind: Kind
    micro_batch: int
    chunk: int


Program = list[list[Action]]


@dataclass(frozen=True)
class Requirement:
    """One row of what a schedule demands of (pp, vpp, micro_batches); `message` is a template over these names."""

    name: str
    holds: Callable[[Any, Any, Any], Any]  # three Counts in, bool or NDArray[bool] out
    message: str

    def explain(self, pp: int, vpp: int, micro_batches: int) -> str:
        """The message with the numbers of one plan."""
        return self.message.format(pp=pp, vpp=vpp, micro_batches=micro_batches)


MICRO_BATCH = Requirement(
    "micro_batches",
    lambda _pp, _vpp, micro_batches: micro_batches >= 1,
    "micro_batches = {micro_batches} must be at least 1",
)
PIPELINED = Requirement(
    "pipelined", lambda pp, _vpp, _micro_batches: pp > 1, "pp = {pp} must be at least 2 (without a pipeline use 1f1b)"
)
WHOLE_STAGE = Requirement(
    "whole_stage",
    lambda _pp, vpp, _micro_batches: vpp == 1,
    "vpp = {vpp} must be 1 (only a chunked schedule splits a stage)",
)


class Schedule(ABC):
    """Order of the work of a pipeline of `pp` stages with `vpp` model chunks each over `micro_batches` a step.

    The closed forms hold for stages of equal time and messages that take none: `forward` and `backward` [s] are one
    micro-batch on one whole stage (all its chunks; the mean stage when they differ). They are exact for every legal
    plan. `chunked` schedules take vpp > 1; `splits_backward` tells that the program has W; the closed form then
    gives B and W half of the backward pass each.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    chunked: ClassVar[bool] = False
    splits_backward: ClassVar[bool] = False
    legal: ClassVar[tuple[Requirement, ...]]

    @staticmethod
    @abstractmethod
    def bubble(pp: Count, vpp: Count, micro_batches: Count | Num, forward: Num, backward: Num) -> Num:
        """Idle time of a rank in one step [s]: the step less micro_batches · (forward + backward)."""

    @staticmethod
    @abstractmethod
    def in_flight(pp: Count, vpp: Count, micro_batches: Count | Num, rank: Count) -> Num:
        """Most micro-batches whose activations stage `rank` holds at once [whole stages: chunks held / vpp]."""

    @staticmethod
    @formula(unit="messages", source="Narayanan 2021, arXiv:2104.04473, section 2.2.2")
    def sends(pp: Count, vpp: Count, micro_batches: Count | Num) -> Num:
        """Messages of the busiest rank in one step in each direction, each one micro-batch's activation or gradient."""
        return 1.0 * micro_batches * vpp * np.minimum(pp - 1, 1)

    @abstractmethod
    def program(self, pp: int, vpp: int, micro_batches: int) -> Program:
        """The actions of each rank in order [pp lists]; the degrees must be legal."""

    def broken(self, pp: int, vpp: int, micro_batches: int) -> list[str]:
        """One sentence for each requirement that a plan breaks, none when it is legal."""
        rows = (row for row in self.legal if not row.holds(pp, vpp, micro_batches))
        return [f"{self.name}: {row.explain(pp, vpp, micro_batches)}" for row in rows]


def fill_and_drain(pp: Count, forward: Num, backward: Num) -> Num:
    """Idle time [s] while a pipeline of whole stages fills and drains: pp - 1 stages forward and pp - 1 backward."""
    return (pp - 1) * (forward + backward)


def in_order(kind: Kind, micro_batches: int) -> list[Action]:
    """`kind` of work on each micro-batch of an unchunked stage."""
    return [Action(kind, i, 0) for i in range(micro_batches)]


def alternate(forwards: list[Action], backwards: list[Action], warmup: int) -> list[Action]:
    """`warmup` forwards, then one forward and one backward in turn, then the backwards that are left.

    The two lists have the same length.
    """
    steady = zip(forwards[warmup:], backwards, strict=False)
    paired = [action for pair in steady for action in pair]
    return forwards[:warmup] + paired + backwards[len(forwards) - warmup :]
