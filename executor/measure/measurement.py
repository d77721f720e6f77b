"""One measured number with everything needed to fit a formula to it: what ran, its sizes, how long, by which clock."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from planner.errors import Fault, InputError, nearest
from planner.files import write

SIZES: dict[str, tuple[str, ...]] = {
    "peak": ("rows", "columns", "inner"),
    "matmul": ("rows", "columns", "inner"),
    "grouped_matmul": ("groups", "rows", "columns", "inner"),
    "attention": ("batch", "heads", "seq_len", "head_dim"),
    "attention_backward": ("batch", "heads", "seq_len", "head_dim"),
    "copy": ("bytes",),
    "pointwise": ("bytes",),
    "launch": (),
    "all_gather": ("bytes", "ranks"),
    "reduce_scatter": ("bytes", "ranks"),
    "all_reduce": ("bytes", "ranks"),
    "all_to_all": ("bytes", "ranks"),
    "point_to_point": ("bytes", "ranks"),
    "broadcast": ("bytes", "ranks"),
}
"""The kinds of measurement and the sizes that each must state."""
COLLECTIVES = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "point_to_point")
"""Collectives that the planner has a formula for; a broadcast is kept but fitted by nothing."""
CLOCKS = ("wall", "cpu", "device")


@dataclass(frozen=True)
class Measurement:
    """`seconds` [s] of one call of `kind` with `sizes`; a batch-first attention counts causal.

    `sizes`: rows, columns, inner, groups [elements or matrices]; batch, heads, seq_len, head_dim; bytes [B] (of a
    collective the whole tensor: gathered, to be scattered, or reduced; of an all-to-all what a rank holds); ranks, and
    `stride` between them (1: neighbours). `dtype` is a name of a peak. `clock`: wall, cpu (time of the process) or
    device (events on the GPU). `spread` is the interquartile range over the median of `repeats`. `source` says on what.
    """

    kind: str
    sizes: Mapping[str, float]
    dtype: str
    seconds: float
    clock: str = "wall"
    spread: float = 0.0
    repeats: int = 1
    name: str = ""
    source: str = ""

    def __getitem__(self, size: str) -> float:
        """One of the sizes; a stride that is not stated is 1."""
        return float(self.sizes.get(size, 1.0) if size == "stride" else self.sizes[size])


def to_lines(rows: Iterable[Measurement]) -> str:
    """JSON lines, one row each."""
    return "".join(json.dumps(asdict(row), sort_keys=True, allow_nan=False) + "\n" for row in rows)


def save(rows: Iterable[Measurement], path: Path) -> None:
    """Write rows as JSON lines, whole or not at all."""
    write(path, to_lines(rows))


def load(text: str, where: str) -> list[Measurement]:
    """The rows of JSON lines; InputError with every line that is none."""
    faults: list[Fault] = []
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(read_row(json.loads(line), f"{where}:{number}"))
            except json.JSONDecodeError as error:
                faults.append(Fault(f"{where}:{number}", f"is not JSON: {error.msg}"))
            except InputError as error:
                faults.extend(error.faults)
    if faults:
        raise InputError(*faults)
    return rows


def read_row(data: Any, where: str) -> Measurement:
    """One row from its JSON object; InputError with everything that is wrong with it."""
    if not isinstance(data, dict) or not isinstance(data.get("sizes", {}), dict):
        raise InputError(Fault(where, "expected the object of a measurement, with its sizes", type(data).__name__))
    kind, known = data.get("kind"), {field.name for field in fields(Measurement)}
    faults = [Fault(f"{where}.{key}", "is not known", None, nearest(key, known)) for key in data if key not in known]
    if kind not in SIZES:
        faults.append(Fault(f"{where}.kind", f"expected one of {', '.join(SIZES)}", kind, nearest(str(kind), SIZES)))
    sizes = data.get("sizes", {})
    wanted = {f"sizes.{size}": sizes.get(size) for size in SIZES.get(str(kind), ())}
    for key, value in {**wanted, "seconds": data.get("seconds")}.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            faults.append(Fault(f"{where}.{key}", "expected a positive number", value))
    if data.get("clock", "wall") not in CLOCKS:
        faults.append(Fault(f"{where}.clock", f"expected one of {', '.join(CLOCKS)}", data.get("clock")))
    if faults:
        raise InputError(*faults)
    return Measurement(**{"dtype": "", **data})
