"""Each collective timed by size and group, on every rank of a process group; groups of one size run at once.

On CPUs the time is that of the whole process: gloo moves and adds in threads of its own. On GPUs events on the stream
of NCCL count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle

import torch
import torch.distributed as dist

from executor.measure.clock import Timing, span, summary
from executor.measure.kernels import COLD, as_row
from executor.measure.measurement import COLLECTIVES, Measurement

ITEM = 4  # bytes of a value; messages are fp32
SAMPLES = 7
BYTES_PER_SAMPLE = 2e7  # so many bytes, or MOST_CALLS calls, make a sample
MOST_CALLS = 40


@dataclass(frozen=True)
class Ring:
    """This rank's group of `size` ranks, `stride` apart, at position `index`, with its two neighbours' global ranks."""

    group: dist.ProcessGroup
    size: int
    stride: int
    index: int
    following: int
    previous: int


def rings(size: int, stride: int) -> Ring:
    """The group of this rank among all groups of `size` ranks `stride` apart; every rank must call this."""
    world, me = dist.get_world_size(), dist.get_rank()
    block = size * stride
    found: Ring | None = None
    for first in range(0, world, block):
        for offset in range(stride):
            ranks = [first + offset + stride * i for i in range(size)]
            group = dist.new_group(ranks)
            if me in ranks:
                at = ranks.index(me)
                found = Ring(group, size, stride, at, ranks[(at + 1) % size], ranks[at - 1])
    if found is None:
        raise ValueError(f"{size} ranks {stride} apart do not divide a world of {world}")
    return found


def sizes_of_groups(world: int) -> list[tuple[int, int]]:
    """(size, stride) of the groups worth timing: powers of two up to the world, neighbours."""
    return [(size, 1) for size in (2**power for power in range(1, 16)) if size <= world and world % size == 0]


def collectives(sizes: tuple[int, ...], device: str, name: str) -> Iterator[Measurement]:
    """Rows of every collective at each of `sizes` [B] for every group; the same on all ranks (mean time over ranks)."""
    for size, stride in sizes_of_groups(dist.get_world_size()):
        ring = rings(size, stride)
        for volume in sizes:
            count = max(volume // ITEM // size, 1) * size
            for kind in COLLECTIVES:
                call = calls(kind, count, ring, device)
                timing = _timed(call, count * ITEM, device)
                where = {"bytes": float(count * ITEM), "ranks": float(size), "stride": float(stride)}
                yield as_row(kind, where, "fp32", _mean_over_ranks(timing, device), name)


def calls(kind: str, count: int, ring: Ring, device: str) -> Callable[[], object]:
    """One call of a collective on `count` values (of the whole tensor; of a rank for all-to-all and point to point).

    Buffers come in turn from pools that no cache holds, as in a step.
    """
    copies = min(max(COLD[device] // (count * ITEM), 2), MOST_CALLS)
    whole = cycle([torch.ones(count, device=device) for _ in range(copies)])
    part = cycle([torch.ones(count // ring.size, device=device) for _ in range(copies)])
    # torch 2.13 renames the two; older ones have only the old names
    gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
    scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)
    if kind == "all_gather":
        return lambda: gather(next(whole), next(part), group=ring.group)
    if kind == "reduce_scatter":
        return lambda: scatter(next(part), next(whole), group=ring.group)
    if kind == "all_reduce":
        return lambda: dist.all_reduce(next(whole), group=ring.group)
    if kind == "all_to_all":
        return lambda: dist.all_to_all_single(next(whole), next(whole), group=ring.group)

    def shift() -> None:
        pair = [
            dist.P2POp(dist.isend, next(whole), ring.following, ring.group),
            dist.P2POp(dist.irecv, next(whole), ring.previous, ring.group),
        ]
        for work in dist.batch_isend_irecv(pair):
            work.wait()

    return shift


def _timed(call: Callable[[], object], volume: int, device: str) -> Timing:
    """All ranks make the same number of calls, whatever each finds they take."""
    repeats = int(min(max(BYTES_PER_SAMPLE / volume, 3), MOST_CALLS))
    call()
    samples = []
    for _ in range(SAMPLES):
        dist.barrier()
        samples.append(span(call, repeats, device, whole=True))
    return summary(samples, device)


def _mean_over_ranks(timing: Timing, device: str) -> Timing:
    """All ranks agree on the mean, so that each has the same rows."""
    value = torch.tensor([timing.seconds, timing.spread], device=device, dtype=torch.float64)
    dist.all_reduce(value)
    seconds, spread = (float(x) / dist.get_world_size() for x in value)
    return Timing(seconds, spread, timing.repeats, timing.clock)
