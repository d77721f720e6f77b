"""What a plan.json states: every fault of the file named before any of it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from planner import compression
from planner.batch_size import Stage, ramp_faults
from planner.errors import Fault, InputError, nearest
from planner.optimizers import MASTERS, OPTIMIZERS
from planner.precision import PRECISIONS
from planner.provenance import SCHEMA_VERSION
from planner.schedules import SCHEDULES
from planner.setting import Routing
from planner.strategy import MESSAGES, ORDERS, RECOMPUTE, ZERO, Choices, Degrees, Workload

LARGEST_FILE = 64  # MiB; a plan of a thousand stages has about one
LARGEST_COUNT = 10**9  # GPUs, sequences or tokens of one sequence; more is a slip of the keyboard
MAKE = "write one with `plan search --out DIR`"
STRATEGY = "estimate.strategy"


@dataclass(frozen=True)
class Stated:
    """The inputs of a plan as its file states them: names, workload, degrees, choices."""

    model: str
    cluster: str
    stack: str
    workload: Workload
    degrees: Degrees
    choices: Choices
    calibration: str = ""
    routing: Routing = field(default_factory=Routing)
    trace: str = ""


@dataclass
class _Reader:
    """Values by dotted key; what is missing or wrong becomes a fault."""

    data: dict[str, Any]
    where: str
    faults: list[Fault] = field(default_factory=list)

    def fault(self, key: str, expected: str, value: object = None, hint: str | None = None) -> None:
        self.faults.append(Fault(f"{self.where}: {key}", expected, value, hint))

    def entry(self, key: str) -> Any:
        found: Any = self.data
        for step in key.split("."):
            if not isinstance(found, dict) or step not in found:
                self.fault(key, "is missing")
                return None
            found = found[step]
        if found is None:
            self.fault(key, "is null")
        return found

    def count(self, key: str) -> int:
        value = self.entry(key)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_COUNT:
            return value
        if value is not None:
            self.fault(key, f"expected a whole number of at least 1 and at most {LARGEST_COUNT:,}", value)
        return 1

    def number(self, key: str) -> float:
        value = self.entry(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < math.inf:
            return float(value)
        if value is not None:
            self.fault(key, "expected a finite number of at least 1", value)
        return 1.0

    def amount(self, key: str) -> float:
        value = self.entry(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
            return float(value)
        if value is not None:
            self.fault(key, "expected a finite number from 0", value)
        return 0.0

    def name(self, key: str) -> str:
        value = self.entry(key)
        if value is not None and not isinstance(value, str):
            self.fault(key, "expected a name", value)
        return str(value)

    def flag(self, key: str) -> bool:
        value = self.entry(key)
        if value is not None and not isinstance(value, bool):
            self.fault(key, "expected true or false", value)
        return value is True

    def choice(self, key: str, options: Sequence[Any]) -> Any:
        value = self.entry(key)
        if value is not None and not any(type(value) is type(option) and value == option for option in options):
            known = [str(option) for option in options]
            self.fault(key, f"expected one of {', '.join(known)}", value, nearest(str(value), known))
        return value


def stated(data: dict[str, Any], where: str) -> Stated:
    """The inputs in the object of a plan.json; InputError with every key that is missing or wrong."""
    reader = _Reader(data, where)
    reader.choice("schema_version", (SCHEMA_VERSION,))
    model, cluster, stack = (reader.name(f"inputs.{key}") for key in ("model", "cluster", "stack"))
    seq_len, batch = (reader.count(f"workload.{key}") for key in ("seq_len", "global_batch"))
    workload = Workload(seq_len, batch, reader.number("workload.tokens"), *_critical(reader), _ramp(reader))
    degrees = Degrees(**{f.name: reader.count(f"{STRATEGY}.{f.name}") for f in fields(Degrees)})
    options: dict[str, Sequence[Any]] = {
        "schedule": tuple(SCHEDULES),
        "recompute": RECOMPUTE,
        "zero": ZERO,
        "precision": tuple(PRECISIONS),
        "order": ORDERS,
        "optimizer": tuple(OPTIMIZERS),
    }
    chosen = {name: reader.choice(f"{STRATEGY}.{name}", known) for name, known in options.items()}
    chosen |= _methods(reader)
    # written as false without tensor parallelism, where it changes nothing
    sequence_parallel = reader.flag(f"{STRATEGY}.sequence_parallel") or degrees.tp == 1
    inputs = data.get("inputs")
    calibration = reader.name("inputs.calibration") if isinstance(inputs, dict) and "calibration" in inputs else ""
    trace, routing = _routing(reader) if isinstance(inputs, dict) and "routing" in inputs else ("", Routing())
    if not reader.faults:
        reader.faults += [replace(fault, where=f"{where}: {fault.where}") for fault in fits_run(workload)]
    if reader.faults:
        raise InputError(*reader.faults)
    choices = Choices(**chosen, sequence_parallel=sequence_parallel)
    return Stated(model, cluster, stack, workload, degrees, choices, calibration, routing, trace)


def _methods(reader: _Reader) -> dict[str, Any]:
    """Master copy, compression and teacher, each as it is by default where an older file does not state it."""
    found = reader.data.get("estimate")
    strategy = found.get("strategy") if isinstance(found, dict) else None
    stated = strategy if isinstance(strategy, dict) else {}
    chosen: dict[str, Any] = {}
    for name, known in (("master", tuple(MASTERS)), ("messages", MESSAGES)):
        if name in stated:
            chosen[name] = reader.choice(f"{STRATEGY}.{name}", known)
    for kind in ("prune", "quantize"):
        if kind not in stated:
            continue
        chosen[kind] = reader.name(f"{STRATEGY}.{kind}")
        try:
            compression.get(chosen[kind], kind, f"{reader.where}: {STRATEGY}.{kind}")
        except InputError as error:
            reader.faults += error.faults
    if "distill_from" in stated:
        chosen["distill_from"] = reader.name(f"{STRATEGY}.distill_from")
    for name in ("teacher_gpus", "teacher_topk"):
        if stated.get(name, 0) != 0:
            chosen[name] = reader.count(f"{STRATEGY}.{name}")
    return chosen


def _critical(reader: _Reader) -> tuple[float, str]:
    """The critical batch and its law; none where the file has none."""
    work = reader.data.get("workload")
    if not isinstance(work, dict) or "critical_batch" not in work:
        return 0.0, ""
    return reader.number("workload.critical_batch.tokens"), reader.name("workload.critical_batch.law")


def _ramp(reader: _Reader) -> tuple[Stage, ...]:
    """The stages of a ramp-up; none where the file has none."""
    work = reader.data.get("workload")
    if not isinstance(work, dict) or "ramp_up" not in work:
        return ()
    stages = work["ramp_up"]
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        reader.fault("workload.ramp_up", "expected a list of stages with global_batch and until", stages)
        return ()
    before = len(reader.faults)
    found = []
    for index, stage in enumerate(stages):
        inner = _Reader(stage, f"{reader.where}: workload.ramp_up[{index}]")
        found.append(Stage(inner.count("global_batch"), inner.number("until")))
        reader.faults += inner.faults
    if len(reader.faults) == before:
        reader.faults += ramp_faults(found, f"{reader.where}: workload.ramp_up")
    return tuple(found)


def fits_run(workload: Workload) -> list[Fault]:
    """What is wrong between the ramp-up and the run that it starts."""
    if not workload.ramp:
        return []
    last, faults = workload.ramp[-1], []
    if last.global_batch >= workload.global_batch:
        expected = f"a ramp-up must stay below the {workload.global_batch} sequences of --global-batch"
        faults.append(Fault("ramp-up", expected, last.global_batch))
    if last.until >= workload.tokens:
        faults.append(Fault("ramp-up", f"must end before the run's {workload.tokens:.4g} tokens", last.until))
    return faults


def _routing(reader: _Reader) -> tuple[str, Routing]:
    """The trace of an expert placement and what it costs; null copies stand for those of uniform draws."""
    trace, imbalance = reader.name("inputs.routing.trace"), reader.number("inputs.routing.imbalance")
    stated = reader.data["inputs"]["routing"]
    uniform = isinstance(stated, dict) and "copies" in stated and stated["copies"] is None
    return trace, Routing(imbalance, None if uniform else reader.amount("inputs.routing.copies"))


def read_json(path: Path, name: str = "plan.json", make: str = MAKE) -> dict[str, Any]:
    """The JSON object in a file; every way in which it may be none is one sentence.

    `name` is what such a file is called, `make` how to get one.
    """
    if path.is_dir():
        raise InputError(Fault(str(path), f"is a directory; expected a {name}"))
    try:
        if path.stat().st_size > LARGEST_FILE * 2**20:
            raise InputError(Fault(str(path), f"is larger than {LARGEST_FILE} MiB; expected a {name}"))
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except FileNotFoundError:
        raise InputError(Fault(str(path), f"does not exist; {make}")) from None
    except UnicodeDecodeError as error:
        raise InputError(Fault(str(path), f"is not UTF-8 text (byte {error.start})")) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(Fault(str(path), f"is not valid JSON: {error.msg} at {place}")) from None
    except OSError as error:
        raise InputError(Fault(str(path), f"can't be read: {error.strerror}")) from None
    except RecursionError:
        raise InputError(Fault(str(path), f"is not a {name}: its JSON is nested too deeply")) from None
    except ValueError as error:
        raise InputError(Fault(str(path), f"is not valid JSON: {error}")) from None
    if not isinstance(data, dict):
        raise InputError(Fault(str(path), f"holds a JSON {type(data).__name__}; expected the object of a {name}"))
    return data


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")
