"""What happened in some steps, measured or simulated: one type, so that both compare and draw alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
            events=tuple(Event(**_of(Event, event)) for event in data.get("events") or ()),
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
    return [
        Fault(f"{where}: {key}", expected, data.get(key)) for key, expected, good in DEMANDS if not good(data.get(key))
    ]


def _fields(kind: type[Any]) -> str:
    return ", ".join(each.name for each in fields(kind))


def _rows(kind: type[Any]) -> tuple[str, Callable[[Any], bool]]:
    """What a list of a dataclass's objects is expected to be, and whether it is."""
    expected = f"expected a list of objects with {_fields(kind)}"
    return expected, lambda rows: isinstance(rows, list | tuple) and all(_is(kind, row) for row in rows)


def _one(kind: type[Any]) -> tuple[str, Callable[[Any], bool]]:
    return f"expected an object with numbers from 0 under {_fields(kind)}", lambda found: _is(kind, found)


def _optional(demand: tuple[str, Callable[[Any], bool]]) -> tuple[str, Callable[[Any], bool]]:
    return demand[0], lambda found: found is None or demand[1](found)


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


DEMANDS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("origin", f"expected one of {', '.join(ORIGINS)}", lambda found: found in ORIGINS),
    ("ranks", "expected a whole number of at least 1", lambda found: isinstance(found, int) and found >= 1),
    ("plan", "expected an object", lambda found: isinstance(found, Mapping)),
    ("steps", *_rows(Step)),
    ("phases", *_one(Phases)),
    ("check", *_optional(_one(Check))),
    ("events", *_optional(_rows(Event))),
    (
        "peak_memory_bytes",
        "expected one number for each rank",
        lambda found: isinstance(found, list | tuple) and all(map(_is_time, found)),
    ),
)
"""Key, what is expected of it, and whether a value is that."""
