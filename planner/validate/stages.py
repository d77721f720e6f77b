"""The stages of a published run as its framework cuts them, and the micro-batches that each holds at its peak."""

from __future__ import annotations

from dataclasses import dataclass

from planner.cost.step import StepTime
from planner.cuts import by_framework, stages
from planner.estimate import priced, units
from planner.layout import Layout, chain, layer_kinds
from planner.plan import Plan
from planner.schedules import get
from planner.setting import Setting, micro_batch_count
from planner.strategy import Degrees


@dataclass(frozen=True)
class Flight:
    """Micro-batches of a stage that have gone forward and not yet back: of its first chunk, of each middle chunk and of
    its last.
    """

    first: float
    middle: float
    last: float

    def of(self, chunk: int, chunks: int) -> float:
        """Those of one of the stage's `chunks`."""
        return self.first if chunk == 0 else self.last if chunk == chunks - 1 else self.middle


def step_as_cut(setting: Setting, degrees: Degrees) -> StepTime:
    """The step of a run on stages cut as its framework cuts them."""
    shape = by_framework(setting.model, int(degrees.pp), int(degrees.vpp), setting.stack.name)
    return priced(units(setting, degrees), shape, setting, degrees)


def as_cut(plan: Plan, *, doubled: bool = False, offloaded: int = 0) -> Layout:
    """Every stage of the run: its layers of each kind, and those times the micro-batches it holds.

    `doubled`: ZB-2p, where each stage holds twice what the first stage of 1F1B does, less one (Qi 2023, section 2.3).
    `offloaded`: the first layers of each chunk whose activations wait in the memory of the host.
    """
    setting, degrees = plan.setting, plan.degrees
    pp, vpp = int(degrees.pp), int(degrees.vpp)
    columns, kinds = chain(setting.model), range(len(layer_kinds(setting.model)))
    batches = int(micro_batch_count(setting, degrees))
    counts, held = [], []
    for rank, chunks in enumerate(stages(setting.model, pp, vpp, setting.stack.name)):
        flight = _flight(setting.choices.schedule, pp, vpp, batches, rank)
        if doubled:
            flight = _alike(min(2 * pp - 1, batches))
        counts.append(tuple(sum(chunk.count(kind) for chunk in chunks) for kind in kinds))
        here = [_here(chunk, offloaded, len(setting.model.kinds)) for chunk in chunks]
        held.append(tuple(sum(flight.of(i, vpp) * chunk.count(kind) for i, chunk in enumerate(here)) for kind in kinds))
    total = tuple(columns.count(kind) for kind in kinds)
    return Layout(tuple(counts), tuple(range(pp)), total, tuple(held))


def _here(chunk: tuple[int, ...], offloaded: int, embedding: int) -> tuple[int, ...]:
    """Columns of a chunk without its first `offloaded` layers."""
    start = int(bool(offloaded) and chunk[:1] == (embedding,))
    return chunk[:start] + chunk[start + offloaded :]


def _flight(schedule: str, pp: int, vpp: int, batches: int, rank: int) -> Flight:
    """At the end of the warm-up, when a stage holds the most.

    Interleaved (Narayanan 2021): 2(pp - 1 - rank) + 1 chunks go forward after the first vpp - 1 rounds of pp; the first
    pp of them are of the last chunk, the others of the first chunk again.
    """
    if vpp == 1:
        return _alike(float(get(schedule).in_flight(pp, vpp, batches, rank)))
    after = 2 * (pp - 1 - rank) + 1
    most = float(min(pp, batches))
    return Flight(float(min(pp + max(0, after - pp), batches)), most, float(min(pp, after, batches)))


def _alike(held: float) -> Flight:
    """The same of every chunk."""
    return Flight(held, held, held)
