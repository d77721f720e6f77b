"""Gets a job onto ranks: children of this process, or the processes that torchrun has started on any machines."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType
from typing import Any, TypeVar

from executor.failures import cause
from executor.job import Job, Report
from executor.ranks import RankFailed, Ranks
from executor.signals import handling
from planner.errors import RunFailed

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
NAMELESS = "none"  # what torchrun calls a job without --rdzv-id
AnyJob = TypeVar("AnyJob", bound=Job)
WORLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def world() -> int | None:
    """Ranks that torchrun has started, None when it started none."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in WORLD) else None


def run_id() -> str | None:
    """The name of torchrun's job, which its restarts keep; None without one."""
    found = os.environ.get("TORCHELASTIC_RUN_ID", NAMELESS)
    return None if found == NAMELESS else found


def spawn(job: Job, pool: Ranks, ranks: int) -> list[Report]:
    """The reports of `ranks` children of `pool`; RunFailed with the cause when one of them failed."""
    with _forwarding(pool) as asked:
        try:
            return pool.run(_train, job, ranks=ranks)
        except RankFailed as error:
            if asked():
                raise KeyboardInterrupt from None
            raise RunFailed(cause(error.failures)) from error


def together(make: Callable[[], AnyJob]) -> tuple[AnyJob, list[Report]]:
    """Do the job that rank 0 makes on all ranks that are joined; all reports, on rank 0 alone, else only the own."""
    import torch.distributed as dist  # noqa: PLC0415

    first = dist.get_rank() == 0
    control = dist.new_group(backend="gloo")
    told: list[Any] = [_attempt(make)] if first else [None]
    dist.broadcast_object_list(told, group=control)
    if isinstance(told[0], Exception):
        raise told[0]
    try:
        own = _train(told[0])
    except Exception as error:
        story = "".join(traceback.format_exception(error))
        raise RunFailed(cause({dist.get_rank(): story})) from error
    reports: list[Any] | None = [None] * dist.get_world_size() if first else None
    dist.gather_object(own, reports, group=control)
    return told[0], reports or [own]


def _train(job: Job) -> Report:
    """What every rank runs, named here so that the parent, which only hands it on, loads no torch for it."""
    report: Report = import_module(job.entry).train(job)
    return report


def _attempt(make: Callable[[], Job]) -> Job | Exception:
    try:
        return make()
    except Exception as error:  # noqa: BLE001  every rank must hear of it
        return error


@contextmanager
def _forwarding(pool: Ranks) -> Iterator[Callable[[], bool]]:
    """SIGTERM and the first SIGINT are handed to the ranks, which save and return; a second SIGINT ends them."""
    asked: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if signal.SIGINT in asked and number == signal.SIGINT:
            pool.close()
            raise KeyboardInterrupt
        asked.append(number)
        for pid in pool.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    with handling(forward):
        yield lambda: bool(asked)
