"""What every rank of a recipe's training is told, and what it reports beside `executor.job`. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from executor.job import Job, Report
from executor.saved import Saved
from executor.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingJob(Job):
    """Train as `recipe` says; `out` is its folder.

    `start` has the weights to start from, `old` the recipe that trained them.
    """

    entry: ClassVar[str] = "executor.training.loop"

    recipe: Recipe | None = None
    out: Path | None = None
    start: Saved | None = None
    old: Recipe | None = None


@dataclass(frozen=True)
class TrainingReport(Report):
    """`story`: what training.json tells of the training, the same on every rank, as plain JSON values."""

    story: dict[str, Any] = field(default_factory=dict)
