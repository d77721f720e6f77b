"""A timeline as a Chrome trace (Perfetto, chrome://tracing): one process per rank, one thread per stream."""

from __future__ import annotations

from typing import Any

from planner.record import Event, Record
from planner.simulate.replay import Slot, Timeline

_Row = tuple[Event, str, dict[str, int]]  # event, title, arguments

KINDS = {"F": "forward", "B": "backward", "W": "weight gradient"}
MICROSECONDS = 1e6  # in a second; the format counts in them


def pipeline_events(timeline: Timeline) -> tuple[Event, ...]:
    """The slots of a replay as the events of a record, all on the compute stream."""
    return tuple(_event(slot) for slot in timeline.slots)


def trace(source: Timeline | Record) -> dict[str, Any]:
    """The JSON object of a trace; the slots of a replay also name micro-batch and chunk."""
    if isinstance(source, Record):
        rows: list[_Row] = [(event, event.kind, {}) for event in source.events]
    else:
        rows = [(_event(slot), _title(slot), _arguments(slot)) for slot in source.slots]
    threads = {key: number for number, key in enumerate(sorted({(row[0].rank, row[0].stream) for row in rows}))}
    spans = [_span(event, title, arguments, threads[event.rank, event.stream]) for event, title, arguments in rows]
    return {"displayTimeUnit": "ms", "traceEvents": _names(threads) + spans}


def _event(slot: Slot) -> Event:
    return Event(slot.rank, "compute", KINDS[slot.kind], slot.start, slot.end)


def _title(slot: Slot) -> str:
    return f"{slot.kind}{slot.micro_batch}" + (f" chunk {slot.chunk}" if slot.chunk else "")


def _arguments(slot: Slot) -> dict[str, int]:
    return {"micro_batch": slot.micro_batch, "chunk": slot.chunk}


def _span(event: Event, title: str, arguments: dict[str, int], thread: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": title,
        "cat": event.kind,
        "pid": event.rank,
        "tid": thread,
        "ts": event.start * MICROSECONDS,
        "dur": (event.end - event.start) * MICROSECONDS,
        "args": arguments,
    }


def _names(threads: dict[tuple[int, str], int]) -> list[dict[str, Any]]:
    """The metadata rows that name each process once and each thread."""
    ranks = sorted({rank for rank, _ in threads})
    processes = [{"ph": "M", "name": "process_name", "pid": rank, "args": {"name": f"rank {rank}"}} for rank in ranks]
    named = [
        {"ph": "M", "name": "thread_name", "pid": rank, "tid": thread, "args": {"name": stream}}
        for (rank, stream), thread in threads.items()
    ]
    return processes + named
