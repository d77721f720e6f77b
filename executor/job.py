"""What every rank is told to do, and what it reports. Needs no torch; both go between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from executor.phases import Work
from executor.saved import Saved
from planner.plan import Plan
from planner.record import Event


@dataclass(frozen=True)
class Job:
    """Train `plan` (a proxy's, legal) until `steps` optimizer steps are done.

    Checkpoints go to `folder` (None: none) after `every` steps (0: only when asked to stop), the newest `keep` stay;
    `resume` is where to go on from. `manifest` is written into each checkpoint. `timeout` [s] of one collective.
    `placement` has the layers of a placement.json (none: experts stay where their weights are).
    """

    entry: ClassVar[str] = "executor.train"
    """The module whose `train(job)` does the job on a rank."""

    plan: Plan
    steps: int
    seed: int = 0
    device: str = "cpu"
    learning_rate: float = 1e-3
    folder: Path | None = None
    every: int = 0
    keep: int = 3
    resume: Saved | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 60.0
    progress: bool = False
    placement: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Done:
    """One step of one rank: number from 1, `loss` of the global batch, `wall` and process `cpu` [s], and its work."""

    step: int
    loss: float
    wall: float
    cpu: float
    work: Work


@dataclass(frozen=True)
class Report:
    """What one rank did: its steps, the events of the last one, peak memory [B], the loss on text held out.

    `stopped`: it was asked to stop before the last step.
    """

    rank: int
    steps: tuple[Done, ...]
    events: tuple[Event, ...]
    peak: float
    held_out_loss: float | None
    stopped: bool
