"""How long a call takes: CPU time of the thread or the process on CPUs, events on GPUs.

On shared cores the wall clock of a CPU says more about its neighbours than about the call (spread of 19 % against 3 %),
so the least CPU time of the samples counts there. A GPU is not shared: the median of the events counts. A process that
measures on CPUs needs the environment of `executor.ranks`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WARM_UP = 2
LEAST, MOST = 5, 40  # samples
LONG_ENOUGH = 1e-3  # s; a sample of less repeats the call


@dataclass(frozen=True)
class Timing:
    """`seconds` [s] of one call, `spread` (interquartile range over median) of `repeats` samples, by `clock`."""

    seconds: float
    spread: float
    repeats: int
    clock: str


def time_call(call: Callable[[], object], device: str = "cpu", budget: float = 0.05) -> Timing:
    """Time `call` for about `budget` [s], by events on a GPU, else by the CPU time of this thread."""
    for _ in range(WARM_UP):
        call()
    once = max(span(call, 1, device), 1e-7)
    inner = max(1, math.ceil(LONG_ENOUGH / once))
    count = int(min(max(budget / (inner * once), LEAST), MOST))
    return summary([span(call, inner, device) for _ in range(count)], device)


def span(call: Callable[[], object], repeats: int, device: str, *, whole: bool = False) -> float:
    """Seconds of one of `repeats` calls; `whole` counts all threads of the process, not only this one.

    Calls are queued back to back on a GPU, so that the host's cost hides as in a step.
    """
    if device == "cuda":
        return _events(call, repeats)
    clock = time.process_time if whole else time.thread_time
    started = clock()
    for _ in range(repeats):
        call()
    return (clock() - started) / repeats


def summary(samples: list[float], device: str) -> Timing:
    """The number that stands for samples [s]: the least on a CPU, the median on a GPU."""
    low, middle, high = (float(x) for x in np.percentile(samples, (25, 50, 75)))
    seconds = min(samples) if device == "cpu" else middle
    clock = "cpu" if device == "cpu" else "device"
    return Timing(max(seconds, 1e-9), (high - low) / middle if middle else 0.0, len(samples), clock)


def _events(call: Callable[[], object], repeats: int) -> float:
    import torch  # noqa: PLC0415  importers and fits use this module without torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / repeats
