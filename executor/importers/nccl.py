"""Results of nccl-tests (text, or JSON written with -J) as measurements of collectives.

Its sizes are those of a measurement: of an all-gather the gathered bytes, of a reduce-scatter the whole input, of an
all-to-all what a rank holds. Out-of-place times count; a row with wrong values is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from executor.measure.measurement import Measurement
from planner.errors import Fault, InputError

KINDS = {
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "all_reduce": "all_reduce",
    "alltoall": "all_to_all",
    "sendrecv": "point_to_point",
    "broadcast": "broadcast",
}
DTYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16", "uint8": "uint8", "int8": "int8"}
MICROSECONDS = 1e6  # in a second
DEVICE = re.compile(r"^#\s+Rank\s+\d+ .*?Pid\s+\d+ on\s+(\S+) device\s+\d+ \[[^\]]*\] (.+?)\s*$", re.MULTILINE)
STARTING = re.compile(r"^# Collective test starting: (\S+)", re.MULTILINE)
ROW = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\S+)\s+(\S+)\s+(-?\d+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)")


def is_text(text: str) -> bool:
    """Whether this is the text output of an nccl-tests program."""
    return "# nThread" in text and "algbw" in text


def is_json(data: Any) -> bool:
    """Whether this is the JSON of an nccl-tests program."""
    return isinstance(data, dict) and "results" in data and "nccl_version" in data


def read_text(text: str, where: str) -> list[Measurement]:
    """Rows of a text output; InputError when its collective or its ranks can't be told."""
    named = STARTING.search(text)
    kind = _kind(named.group(1) if named else where, where)
    devices = DEVICE.findall(text)
    rows = (match.groups() for match in map(ROW.match, text.splitlines()) if match)
    results = ((int(row[0]), row[2], row[5], row[8]) for row in rows)
    return list(_rows(kind, results, devices, where))


def read_json(data: dict[str, Any], where: str) -> list[Measurement]:
    """Rows of a JSON report."""
    arguments = data.get("args") or [where]
    kind = _kind(str(arguments[0]), where)
    listed = data.get("devices") or data.get("config", {}).get("devices") or []
    devices = [(str(each.get("hostname")), str(each.get("device_info"))) for each in listed]
    results = []
    for row in data["results"]:
        timed = row.get("out_of_place") or row.get("in_place") or {}
        results.append((row.get("size"), str(row.get("type")), timed.get("time"), timed.get("nwrong")))
    return list(_rows(kind, results, devices, where))


def _rows(kind: str, results: Any, devices: Sequence[tuple[str, str]], where: str) -> Iterator[Measurement]:
    if len(devices) < 2:
        raise InputError(Fault(where, "at least two '# Rank' lines that name the devices are expected", len(devices)))
    name, hosts = devices[0][1], len({host for host, _ in devices})
    sizes = {"ranks": float(len(devices)), "stride": 1.0, "nodes": float(hosts)}
    for size, dtype, microseconds, wrong in results:
        try:
            seconds, bad = float(microseconds) / MICROSECONDS, float(wrong or 0) if wrong not in {"N/A", None} else 0.0
        except (TypeError, ValueError):
            raise InputError(Fault(where, "a row of nccl-tests has a time [us]", microseconds)) from None
        if size and seconds > 0 and not bad:
            yield Measurement(
                kind,
                {**sizes, "bytes": float(size)},
                DTYPES.get(dtype, dtype),
                seconds,
                clock="device",
                name=name,
                source=f"nccl-tests, {PurePath(where).name}",
            )


def _kind(program: str, where: str) -> str:
    name = PurePath(program).name
    for known, kind in KINDS.items():
        if known in name:
            return kind
    expected = f"the name of its program is expected in the file or its name: {', '.join(f'{k}_perf' for k in KINDS)}"
    raise InputError(Fault(where, expected, name))
