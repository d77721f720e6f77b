"""What happened in some steps, measured or simulated: one type, so that both compare and draw alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Event:
    """Work of one `kind` on a `stream` (compute, send, …) of `rank`, from `start` to `end` [s]."""

    rank: int
    stream: str
    kind: str
    start: float
    end: float


@dataclass(frozen=True)
class Step:
    """One optimizer step: `wall_s` [s], `cpu_s` [s per rank], `loss` (None when nothing was trained)."""

    step: int
    loss: float | None
    wall_s: float
    cpu_s: tuple[float, ...]


@dataclass(frozen=True)
class Phases:
    """Time of a step by phase [s], the mean over ranks; `collectives` by name."""

    forward: float
    backward: float
    optimizer: float
    collectives: Mapping[str, float]
    bubble: float


@dataclass(frozen=True)
class Check:
    """Relative error of loss and gradients against one process that trains the same."""

    loss_error: float
    gradient_error: float


@dataclass(frozen=True)
class Record:
    """The schema of record.json. `plan` is the plan's JSON, `peak_memory_bytes` [B per rank], `events` the timeline.

    `provenance` names the inputs and the tool (name, file hash, version).
    """

    origin: Literal["measured", "simulated"]
    plan: Mapping[str, Any]
    ranks: int
    steps: tuple[Step, ...]
    phases: Phases
    peak_memory_bytes: tuple[float, ...]
    check: Check | None = None
    events: tuple[Event, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON object: the fields by name, with the version of the schema."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}
