"""A calibration: numbers measured on one machine that replace those of a cluster's profiles.

The file carries the machine's fingerprint, the date and the residuals of the fit, and under [gpu], [node] and
[fabric] the measured numbers by the same keys and with the same units and sources as in the profiles. Under [stack] it
may carry plain numbers of the software that ran (`stack_name`); they are kept for whoever knows what they mean.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hwprofiles import schema, topology
from hwprofiles.document import Check, Datum, flat, read
from hwprofiles.faults import Fault, InputError, nearest
from hwprofiles.load import bibliography
from hwprofiles.spec import Cluster

PARTS = ("gpu", "node", "fabric")


@dataclass(frozen=True)
class Calibration:
    """`machine` is the fingerprint (free words; a `gpu` in it must match), `residuals` the relative errors of the fit.

    `numbers` maps a dotted key such as "gpu.matmul.bf16.efficiency" to what was measured; `stack` maps mechanisms of
    the software called `stack_name` to their fitted values (empty when none was fitted).
    """

    name: str
    date: str
    machine: Mapping[str, str]
    residuals: Mapping[str, float]
    numbers: Mapping[str, Datum]
    stack_name: str = ""
    stack: Mapping[str, float] = field(default_factory=dict)


def load(path: str | Path) -> Calibration:
    """The calibration at `path`; InputError with every fault of the file."""
    text = read(Path(path))
    check = Check(str(path), set(bibliography()))
    machine = _words(check, text.get("machine", {}))
    residuals = _residuals(check, text.get("residuals", {}))
    stack_name, stack = _stack(check, text.get("stack", {}))
    fabric = {**schema.FABRIC, "parameters": schema.Table(_all_parameters())}
    parts = {"gpu": schema.GPU, "node": schema.NODE, "fabric": fabric}
    fields: dict[str, schema.Field] = {
        **schema.CALIBRATION,
        **{part: schema.Table(schema.optional(table), required=False) for part, table in parts.items()},
    }
    tree = check.table(
        {key: value for key, value in text.items() if key not in {"machine", "residuals", "stack"}}, fields
    )
    check.done()
    return Calibration(tree["name"], tree["date"], machine, residuals, dict(flat(tree)), stack_name, stack)


def overlay(cluster: Cluster, calibration: Calibration) -> Cluster:
    """`cluster` with the measured numbers in place, its tiers rebuilt and its sources naming the calibration.

    Raises InputError when the calibration is of another GPU or overrides what the cluster doesn't have.
    """
    made_on = calibration.machine.get("gpu")
    if made_on and made_on.lower() != cluster.gpu.name.lower():
        raise InputError(Fault(f"{calibration.name}:machine.gpu", f"{cluster.gpu.name!r} is expected", made_on))
    parts: dict[str, Any] = {part: getattr(cluster, part) for part in PARTS}
    faults: list[Fault] = []
    for key, datum in calibration.numbers.items():
        part, *path = key.split(".")
        try:
            spec = _replaced(parts[part], path, datum.value, f"{calibration.name}:{key}")
        except InputError as error:
            faults.extend(error.faults)
            continue
        source = f"{datum.source} (calibration {calibration.name}, {calibration.date})"
        parts[part] = dataclasses.replace(spec, sources={**spec.sources, ".".join(path): source})
    if faults:
        raise InputError(*faults)
    tiers = topology.tiers(parts["node"], parts["fabric"], cluster.gpus)
    price = parts["gpu"].price if cluster.price == cluster.gpu.price else cluster.price
    return dataclasses.replace(cluster, **parts, tiers=tiers, price=price)


def of(
    cluster: Cluster, numbers: Mapping[str, Datum], residuals: Mapping[str, float], words: Mapping[str, str]
) -> Calibration:
    """A calibration of today for a cluster's GPU; `words` add to the machine's fingerprint."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    return Calibration(f"{cluster.name}-{today}", today, {"gpu": cluster.gpu.name, **words}, residuals, numbers)


def dumps(calibration: Calibration) -> str:
    """The TOML text of a calibration, which `load` reads back to an equal one."""
    numbers = (f"{k} = {{ value = {_value(d)}, source = {_quoted(d.source)} }}" for k, d in calibration.numbers.items())
    lines = [f"name = {_quoted(calibration.name)}", f"date = {_quoted(calibration.date)}", *numbers]
    lines += ["", "[machine]", *(f"{_quoted(k)} = {_quoted(v)}" for k, v in calibration.machine.items())]
    lines += ["", "[residuals]", *(f"{_quoted(k)} = {v!r}" for k, v in calibration.residuals.items())]
    if calibration.stack_name:
        lines += ["", "[stack]", f"name = {_quoted(calibration.stack_name)}"]
        lines += [f"{_quoted(k)} = {v!r}" for k, v in calibration.stack.items()]
    return "\n".join(lines) + "\n"


def save(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration, whole or not at all."""
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.write_text(dumps(calibration), encoding="utf-8")
    draft.replace(target)


def _replaced(spec: Any, path: list[str], value: float, where: str) -> Any:
    """`spec` (a frozen dataclass or a mapping) with the number at `path` replaced."""
    head, rest = path[0], path[1:]
    if isinstance(spec, Mapping):
        if head not in spec:
            raise InputError(Fault(where, f"the cluster has no {head!r} to override", None, nearest(head, spec)))
        return {**spec, head: _replaced(spec[head], rest, value, where) if rest else value}
    return dataclasses.replace(spec, **{head: _replaced(getattr(spec, head), rest, value, where) if rest else value})


def _all_parameters() -> dict[str, schema.Field]:
    return {key: field for table in schema.PARAMETERS.values() for key, field in table.items()}


def _words(check: Check, table: object) -> dict[str, str]:
    if isinstance(table, Mapping) and all(isinstance(word, str) for word in table.values()):
        return dict(table)
    check.fault("machine", "a table of words is expected", table)
    return {}


def _stack(check: Check, table: object) -> tuple[str, dict[str, float]]:
    if not isinstance(table, Mapping) or (table and not isinstance(table.get("name"), str)):
        check.fault("stack", "a table with the name of a stack and plain numbers is expected", table)
        return "", {}
    found: dict[str, float] = {}
    for key, value in table.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[key] = float(value)
        elif key != "name":
            check.fault(f"stack.{key}", "a plain finite number is expected", value)
    return str(table.get("name", "")), found


def _residuals(check: Check, table: object) -> dict[str, float]:
    if not isinstance(table, Mapping):
        check.fault("residuals", "a table of relative errors is expected", table)
        return {}
    found: dict[str, float] = {}
    for key, value in table.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
            found[key] = float(value)
        else:
            check.fault(f"residuals.{key}", "a non-negative relative error is expected", value)
    return found


def _quoted(word: str) -> str:
    return json.dumps(word, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(datum: Datum) -> str:
    return datum.text if datum.unit not in schema.UNITS.values() else _quoted(datum.text)
