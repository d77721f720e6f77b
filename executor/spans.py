"""What a rank did and when: one span for each action of the schedule, each collective, the optimizer.

A recorder is set for the steps to be timed; without one a span costs a single test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """One piece of work on this rank.

    `kind`: forward, backward, weight gradient, optimizer, clip, or a collective (all_gather, …) whose `phase` is one of
    tensor, context, expert, pipeline, data; `start`, `end` wall clock [s]; `cpu` time of the process and of the
    `thread` [s] in between; `bytes` that the collective's buffer holds on this rank [B]; `stage` and `micro_batch` of
    an action, -1 where there is none. Collectives inside an action are also inside its span.
    """

    kind: str
    start: float
    end: float
    cpu: float
    thread: float
    phase: str = ""
    bytes: int = 0
    stage: int = -1
    micro_batch: int = -1


def _nothing() -> None:
    """A CPU has no queue to wait for."""


@dataclass
class Recorder:
    """Collects spans; `synchronize` waits for the device at both ends of a span (for CUDA)."""

    synchronize: Callable[[], None] = _nothing
    spans: list[Span] = field(default_factory=list)


_active: list[Recorder] = []


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """All spans of this process go to `recorder` until the block ends."""
    _active.append(recorder)
    try:
        yield recorder
    finally:
        _active.remove(recorder)


def span(
    kind: str, *, phase: str = "", size: int = 0, stage: int = -1, micro_batch: int = -1
) -> AbstractContextManager[None]:
    """Time what happens inside as one span of `size` [B]; nothing when no recorder is set."""
    if not _active:
        return nullcontext()
    return _timed(_active[-1], kind, phase, size, stage, micro_batch)


@contextmanager
def _timed(recorder: Recorder, kind: str, phase: str, size: int, stage: int, micro_batch: int) -> Iterator[None]:
    recorder.synchronize()
    start, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
    try:
        yield
    finally:
        recorder.synchronize()
        # inner clock first, so that each interval lies inside the next: what the thread used, the process used
        thread = time.thread_time() - thread
        cpu = time.process_time() - cpu
        end = time.perf_counter()
        recorder.spans.append(Span(kind, start, end, cpu, thread, phase, size, stage, micro_batch))
