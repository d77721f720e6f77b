"""The process group of ranks that torchrun has started, again after each of its restarts.

With several nodes torchrun's agents keep one store for all rounds and tell the rounds apart by a count that each node
keeps for itself; a node that only follows the restart of another doesn't count it, and the ranks would wait for each
other under two names. So rank 0 gives each round a name of its own. Workers of a round start after all of the last one
have ended (`torch.distributed.elastic` stops them before it meets again), so no rank of an old round answers.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

ROUND = "plan run/round"
ABSENT = "absent"
PAUSE = 0.02  # s between two looks at the store


@contextmanager
def joined(backend: str, timeout: float) -> Iterator[int]:
    """The default process group within the block; yields this rank. `timeout` [s] bounds each collective."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    limit = timedelta(seconds=timeout)
    if backend == "gloo":
        torch.set_num_threads(1)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        agents = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=limit)
        store = PrefixStore(agreed(agents, rank, world, timeout), agents)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)
    else:
        dist.init_process_group(backend, timeout=limit)
    try:
        yield rank
    finally:
        dist.destroy_process_group()


def agreed(store: Store, rank: int, world: int, timeout: float) -> str:
    """A name of this round that all ranks know and no other round had; DistStoreError when a rank stays away."""
    if rank == 0:
        name = uuid.uuid4().hex
        store.set(ROUND, name)
        store.wait([f"{name}/{other}" for other in range(1, world)] or [ROUND], timedelta(seconds=timeout))
        store.delete_key(ROUND)
        store.set(f"{name}/all", "")
        return name
    name, end = ABSENT, time.monotonic() + timeout
    while name == ABSENT or not store.check([f"{name}/all"]):
        found = store.compare_set(ROUND, ABSENT, ABSENT).decode()  # the only read that doesn't wait
        if found not in (ABSENT, name):
            name = found
            store.set(f"{name}/{rank}", "")
        if time.monotonic() > end:
            raise dist.DistStoreError(f"rank 0 didn't meet rank {rank} within {timeout:g} s")
        time.sleep(PAUSE)
    return name
