"""What an importer brings: rows of measurements, or a training run read from its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from executor.measure.measurement import Measurement


@dataclass(frozen=True)
class LogStep:
    """One logged step: `loss`, `seconds` [s] and `tokens_per_s` of one GPU, None where the log does not say."""

    step: int
    loss: float | None
    seconds: float | None
    tokens_per_s: float | None


@dataclass(frozen=True)
class Log:
    """A run by its log: `phases` [s] of a step by the planner's words, `peak_memory_bytes` [B] of a rank.

    `arguments` are those that the program printed, as text by their names there.
    """

    program: str
    steps: tuple[LogStep, ...]
    phases: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: float | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """The content of one file: `rows` or a `log`."""

    rows: tuple[Measurement, ...] = ()
    log: Log | None = None
