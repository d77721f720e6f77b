"""PyTorch profiler traces (Kineto, Chrome format) as measurements: multiplies, attention, collectives.

An operator's time is that of the kernels that it launched (same "External id"), its own where there is no device. The
profiler must have run with record_shapes=True. Repeats of the same call become one row: the median, and its spread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from executor.measure.measurement import Measurement
from planner.errors import Fault, InputError

Event = dict[str, Any]
MICROSECONDS = 1e6  # in a second
KERNELS = {"kernel", "gpu_memcpy", "gpu_memset"}
DTYPES = {"float": "fp32", "c10::BFloat16": "bf16", "c10::Half": "fp16", "BFloat16": "bf16", "Float": "fp32"}
ITEM = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
FORWARD_ATTENTION = (
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
)
COLLECTIVES = {
    "allgather": "all_gather",
    "_allgather_base": "all_gather",
    "allreduce": "all_reduce",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter",
    "all_to_all": "all_to_all",
    "alltoall": "all_to_all",
    "all_to_allv": "all_to_all",
    "send": "point_to_point",
    "broadcast": "broadcast",
}
LARGER_OF = {"all_gather": "Out msg nelems", "reduce_scatter": "In msg nelems"}


@dataclass(frozen=True)
class _Call:
    """What ran, without how long: two calls of the same are repeats."""

    kind: str
    sizes: tuple[tuple[str, float], ...]
    dtype: str
    clock: str


def is_trace(data: Any) -> bool:
    """Whether this is a Chrome trace."""
    return isinstance(data, dict) and isinstance(data.get("traceEvents"), list)


def read(data: dict[str, Any], where: str) -> list[Measurement]:
    """Rows of a trace; InputError when it has no operator with shapes and no NCCL kernel."""
    found: dict[_Call, list[float]] = defaultdict(list)
    events = [event for event in data["traceEvents"] if isinstance(event, dict) and event.get("ph") == "X"]
    for call, seconds in (*_operators(events), *_collectives(events)):
        found[call].append(seconds)
    if not found:
        expected = "operators with shapes (profile with record_shapes=True) or NCCL kernels are expected"
        raise InputError(Fault(where, expected, f"{len(events)} events"))
    devices = data.get("deviceProperties") or [{}]
    name = str(devices[0].get("name", "cpu"))
    return [_row(call, times, name) for call, times in found.items()]


def _row(call: _Call, times: list[float], name: str) -> Measurement:
    low, middle, high = (float(x) for x in np.percentile(times, (25, 50, 75)))
    spread = (high - low) / middle
    source = "PyTorch profiler trace"
    return Measurement(
        call.kind, dict(call.sizes), call.dtype, middle, call.clock, spread, len(times), name=name, source=source
    )


def _operators(events: list[Event]) -> Iterator[tuple[_Call, float]]:
    kernels: dict[Any, float] = defaultdict(float)
    for event in events:
        if event.get("cat") in KERNELS:
            kernels[_argument(event, "External id")] += float(event["dur"])
    for event in events:
        if event.get("cat") != "cpu_op":
            continue
        found = _sizes(event)
        on_device = kernels.get(_argument(event, "External id"))
        duration = on_device if on_device is not None else 0.0 if kernels else float(event["dur"])
        if found and duration > 0:
            kind, sizes, dtype = found
            yield _Call(kind, tuple(sizes.items()), dtype, "device" if kernels else "wall"), duration / MICROSECONDS


def _sizes(event: Event) -> tuple[str, dict[str, float], str] | None:
    """Kind, sizes and number type of an operator that has a formula."""
    name, shapes = event.get("name"), _argument(event, "Input Dims") or []
    types = _argument(event, "Input type") or []
    dtype = DTYPES.get(types[0] if types else "", "")
    matrices = [
        shape for shape in shapes if isinstance(shape, list) and len(shape) == (3 if name == "aten::bmm" else 2)
    ]
    if name in {"aten::mm", "aten::addmm"} and len(matrices) >= 2:
        (m, k), (_, n) = matrices[-2:]
        return "matmul", {"rows": float(m), "columns": float(n), "inner": float(k)}, dtype
    if name == "aten::bmm" and len(matrices) >= 2:
        (g, m, k), (_, _, n) = matrices[-2:]
        sizes = {"groups": float(g), "rows": float(m), "columns": float(n), "inner": float(k)}
        return "grouped_matmul", sizes, dtype
    for forward in FORWARD_ATTENTION:
        if name in {forward, f"{forward}_backward"} and _is_causal(event):
            b, h, s, d = (float(x) for x in shapes[0])
            kind = "attention" if name == forward else "attention_backward"
            return kind, {"batch": b, "heads": h, "seq_len": s, "head_dim": d}, dtype
    return None


def _is_causal(event: Event) -> bool:
    """The flag among the concrete inputs; an attention that is not causal has another law."""
    return "True" in (_argument(event, "Concrete Inputs") or [])


def _collectives(events: list[Event]) -> Iterator[tuple[_Call, float]]:
    for event in events:
        if event.get("cat") != "kernel" or not str(event.get("name", "")).lower().startswith("nccl"):
            continue
        kind = COLLECTIVES.get(str(_argument(event, "Collective name")))
        size, ranks = _argument(event, LARGER_OF.get(kind or "", "In msg nelems")), _argument(event, "Group size")
        dtype = DTYPES.get(str(_argument(event, "dtype")), "")
        if kind and dtype and size and ranks and int(ranks) > 1:
            sizes = {"bytes": float(size) * ITEM[dtype], "ranks": float(ranks), "stride": _stride(event)}
            yield _Call(kind, tuple(sizes.items()), dtype, "device"), float(event["dur"]) / MICROSECONDS


def _stride(event: Event) -> float:
    """Distance of the first two ranks of the group; 1 where the trace shortens the list."""
    ranks = str(_argument(event, "Process Group Ranks") or "").strip("[]").split(",")
    first = [int(word) for word in ranks[:2] if word.strip().isdigit()]
    return float(first[1] - first[0]) if len(first) == 2 and first[1] > first[0] else 1.0


def _argument(event: Event, name: str) -> Any:
    arguments = event.get("args")
    return arguments.get(name) if isinstance(arguments, dict) else None
