"""From the spans of a step to the phases of a record: each second counted once, under what was really done in it.

A collective inside a forward pass counts as a collective, so an action's own time is its span less the spans inside.
What other threads did meanwhile (gloo moves gradients and messages while the main thread computes) counts as the
transfers that nobody waits for at once. On CPUs the seconds are CPU time of the process, which other processes don't
disturb; on GPUs wall time, both ends of a span being synchronised. The bubble is wall time on both: how long a rank had
no action while the pipeline ran.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from executor.spans import Span
from planner.record import Event, Phases

ACTIONS = {"forward": "forward", "backward": "backward", "weight gradient": "backward"}
PHASES = {**ACTIONS, "optimizer": "optimizer", "clip": "optimizer"}
NETWORK = ("tensor", "context", "expert", "pipeline", "data")
BEHIND = ("data", "pipeline")  # transfers that go on behind the actions
MOST_EVENTS = 2000  # of one rank; a record stays readable


@dataclass(frozen=True)
class Work:
    """One step of one rank: seconds by phase or kind of collective, and the pipeline's wall clock [s].

    `running` from the first action to the end of the last, `busy` inside actions.
    """

    seconds: dict[str, float]
    running: float
    busy: float


def work(spans: Sequence[Span], device: str) -> Work:
    """The work of one step."""
    seconds: defaultdict[str, float] = defaultdict(float)
    hidden = 0.0
    for span, own, threads in _own(spans, device):
        name = span.phase or PHASES.get(span.kind, "")
        if name:
            seconds[name] += own
            hidden += threads
    moved = {phase: sum(span.bytes for span in spans if span.phase == phase) for phase in BEHIND}
    for phase, size in moved.items():
        if size:
            seconds[phase] += hidden * size / sum(moved.values())
    actions = [span for span in spans if span.kind in ACTIONS and not span.phase]
    if not actions:
        return Work(dict(seconds), 0.0, 0.0)
    running = max(span.end for span in actions) - min(span.start for span in actions)
    return Work(dict(seconds), running, sum(span.end - span.start for span in actions))


def phases(ranks: Sequence[Sequence[Work]], *, pipelined: bool) -> Phases:
    """The phases of a run from the timed steps of each rank: mean over ranks of the median over steps."""

    def typical(name: str) -> float:
        return fmean(median(step.seconds.get(name, 0.0) for step in steps) for steps in ranks)

    bubbles = [
        fmean(max(rank.running for rank in step) - rank.busy for rank in step) for step in zip(*ranks, strict=True)
    ]
    met = {name for steps in ranks for step in steps for name in step.seconds}
    return Phases(
        forward=typical("forward"),
        backward=typical("backward"),
        optimizer=typical("optimizer"),
        collectives={name: typical(name) for name in NETWORK if name in met},
        bubble=max(median(bubbles), 0.0) if pipelined else 0.0,
    )


def events(rank: int, spans: Sequence[Span], start: float) -> list[Event]:
    """The spans of one step as events of a record, relative to `start` [s]: actions on `compute`, collectives apart."""
    shown = sorted(spans, key=lambda span: span.start)[:MOST_EVENTS]
    return [
        Event(rank, span.phase or "compute", span.kind, max(span.start - start, 0.0), max(span.end - start, 0.0))
        for span in shown
    ]


def _own(spans: Sequence[Span], device: str) -> list[tuple[Span, float, float]]:
    """Each span with its seconds less those of the spans inside it, and what other threads did meanwhile."""
    ordered = sorted(spans, key=lambda span: (span.start, -span.end))
    own = [_seconds(span, device) for span in ordered]
    threads = [span.cpu - span.thread if device == "cpu" and not span.phase else 0.0 for span in ordered]
    open_spans: list[int] = []
    for index, span in enumerate(ordered):
        while open_spans and ordered[open_spans[-1]].end <= span.start:
            open_spans.pop()
        if open_spans:
            outer = ordered[open_spans[-1]]
            own[open_spans[-1]] -= span.thread if device == "cpu" and not outer.phase else _seconds(span, device)
            threads[open_spans[-1]] -= span.cpu - span.thread if device == "cpu" and not outer.phase else 0.0
        open_spans.append(index)
    return [
        (span, max(took, 0.0), max(meanwhile, 0.0)) for span, took, meanwhile in zip(ordered, own, threads, strict=True)
    ]


def _seconds(span: Span, device: str) -> float:
    """A collective with all threads that carry it, other work on the main thread alone."""
    if device != "cpu":
        return span.end - span.start
    return span.cpu if span.phase else span.thread
