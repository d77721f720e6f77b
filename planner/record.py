"""What happened in some steps, measured or simulated: one type, so that both compare and draw alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from planner.errors import Fault, InputError
from planner.plan_file import read_json

SCHEMA_VERSION = 1
ORIGINS = ("measured", "simulated")


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

    `provenance` names the inputs and the tool (name, file hash, version); `proxy` says what a small run stands for and
    what it gave up.
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
    proxy: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON object: the fields by name, with the version of the schema."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "record") -> Self:
        """The record in a JSON object; InputError with every fault, each prefixed by `where`."""
        wrong = _faults(data, where)
        if wrong:
            raise InputError(*wrong)
        check = data.get("check")
        return cls(
            origin=data["origin"],
            plan=data["plan"],
            ranks=data["ranks"],
            steps=tuple(Step(**{**_of(Step, step), "cpu_s": tuple(step["cpu_s"])}) for step in data["steps"]),
            phases=Phases(**_of(Phases, data["phases"])),
            peak_memory_bytes=tuple(data["peak_memory_bytes"]),
            check=Check(**_of(Check, check)) if check else None,
            events=tuple(Event(**_of(Event, event)) for event in data.get("events", ())),
            provenance=data.get("provenance", {}),
            proxy=data.get("proxy", {}),
        )


def read(path: Path) -> Record:
    """The record in a file; InputError when there is none."""
    return Record.from_json(read_json(path, "record.json", "write one with `plan run --out DIR`"), str(path))


def _of(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass in an object that may hold more."""
    return {each.name: data[each.name] for each in fields(kind)}


def _faults(data: Mapping[str, Any], where: str) -> list[Fault]:
    """Everything wrong with the object of a record."""
    if data.get("schema_version") != SCHEMA_VERSION:
        return [Fault(f"{where}: schema_version", f"expected {SCHEMA_VERSION}", data.get("schema_version"))]
    wrong = []
    if data.get("origin") not in ORIGINS:
        wrong.append(Fault(f"{where}: origin", f"expected one of {', '.join(ORIGINS)}", data.get("origin")))
    if not isinstance(data.get("ranks"), int) or data["ranks"] < 1:
        wrong.append(Fault(f"{where}: ranks", "expected a whole number of at least 1", data.get("ranks")))
    for key in ("plan", "phases"):
        if not isinstance(data.get(key), Mapping):
            wrong.append(Fault(f"{where}: {key}", "expected an object", data.get(key)))
    for key, kind in (("steps", Step), ("events", Event)):
        rows = data.get(key, [])
        if not isinstance(rows, list | tuple) or not all(_is(kind, row) for row in rows):
            names = ", ".join(each.name for each in fields(kind))
            wrong.append(Fault(f"{where}: {key}", f"expected a list of objects with {names}"))
    for key, kind in (("phases", Phases), ("check", Check)):
        found = data.get(key)
        if isinstance(found, Mapping) and not _is(kind, found):
            names = ", ".join(each.name for each in fields(kind))
            wrong.append(Fault(f"{where}: {key}", f"expected numbers from 0 under {names}"))
    peaks = data.get("peak_memory_bytes")
    if not isinstance(peaks, list | tuple) or not all(map(_is_time, peaks)):
        wrong.append(Fault(f"{where}: peak_memory_bytes", "expected one number for each rank", peaks))
    return wrong


def _is(kind: type[Any], row: object) -> bool:
    """Whether an object has every field of a dataclass, with a value that it may have."""
    if not isinstance(row, Mapping):
        return False
    return all(each.name in row and _may_be(str(each.type), row[each.name]) for each in fields(kind))


def _may_be(kind: str, value: object) -> bool:
    if kind == "str":
        return isinstance(value, str)
    if kind == "int":
        return isinstance(value, int)
    if kind == "float | None":
        return value is None or _is_time(value)
    if kind.startswith("tuple"):
        return isinstance(value, list | tuple) and all(map(_is_time, value))
    if kind.startswith("Mapping"):
        return isinstance(value, Mapping) and all(map(_is_time, value.values()))
    return _is_time(value)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
