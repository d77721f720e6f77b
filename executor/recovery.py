"""Going on where a training stopped: its newest checkpoint, again after a failure, and what is told when it ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from executor import launch
from executor.job import Job, Report
from executor.ranks import RankFailed, Ranks
from executor.saved import Saved, found, sweep
from planner.errors import Fault, InputError, RunFailed
from planner.files import write

AnyJob = TypeVar("AnyJob", bound=Job)


class Asked(Protocol):
    """What of a training's options matters here: checkpoints in `folder` below `out`, and `steps` in all."""

    @property
    def out(self) -> Path | None:
        """Where everything is written."""

    @property
    def folder(self) -> Path | None:
        """Where checkpoints are."""

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""

    @property
    def seed(self) -> int:
        """Of the weights and the order of the data."""

    @property
    def resume(self) -> bool:
        """Whether to go on from a checkpoint."""


def newest(asked: Asked, *, resume: bool | None = None) -> Saved | None:
    """The checkpoint to go on from; InputError when one is there and nobody asked, or nothing is left to do."""
    if asked.folder is None:
        return None
    there = found(asked.folder)
    if there and not (asked.resume if resume is None else resume):
        expected = f"has checkpoints up to step {there[0].step}: go on with --resume or name another folder"
        raise InputError(Fault("--out", expected, str(asked.out)))
    if there and there[0].step >= asked.steps:
        raise InputError(Fault("--steps", f"the checkpoint has done {there[0].step} steps already", asked.steps))
    if there and there[0].manifest["seed"] != asked.seed:
        raise InputError(Fault("--seed", f"the checkpoint has seed {there[0].manifest['seed']}", asked.seed))
    sweep(asked.folder)
    return there[0] if there else None


def is_ours(asked: Asked) -> bool:
    """Whether the newest checkpoint is of this very job of torchrun, which started its ranks again."""
    there = found(asked.folder) if asked.folder else []
    return bool(there) and there[0].manifest.get("run_id") == launch.run_id() is not None


def persist(job: AnyJob, asked: Asked, pool: Ranks, ranks: int, restarts: int) -> tuple[AnyJob, list[Report]]:
    """Run the job, again from the newest checkpoint after each of the failures that are allowed; the last attempt."""
    for left in range(restarts, -1, -1):
        try:
            return job, launch.spawn(job, pool, ranks)
        except RunFailed as error:
            _story(asked.out, error)
            if not left:
                raise RunFailed(f"{error}{intact(asked)}") from error
            job = replace(job, resume=newest(asked, resume=True))
    raise AssertionError("the last attempt returns or raises")


def together(make: Callable[[], AnyJob], asked: Asked) -> tuple[AnyJob, list[Report]]:
    """Do the job on the ranks of torchrun; RunFailed says where to go on from."""
    try:
        return launch.together(make)
    except RunFailed as error:
        raise RunFailed(f"{error}{intact(asked)}") from error


def intact(asked: Asked) -> str:
    """Where a failed run can be taken up again."""
    there = found(asked.folder) if asked.folder else []
    if there:
        return f"; the checkpoint of step {there[0].step} in {asked.folder} is intact: go on with --resume"
    return "; no checkpoint was written (--checkpoint-every N with --out DIR keeps some)"


def _story(out: Path | None, error: RunFailed) -> None:
    """Keep what every rank said in `failure.txt`, where the disk still takes it."""
    if out and isinstance(error.__cause__, RankFailed):
        text = "\n".join(f"rank {rank}\n{text}" for rank, text in sorted(error.__cause__.failures.items()))
        with suppress(InputError):
            write(out / "failure.txt", text)
