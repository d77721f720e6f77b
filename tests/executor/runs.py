"""Small plans and what the tests of runs share."""

from __future__ import annotations

import os
import threading
import time
import warnings
from dataclasses import replace

import torch
import torch.distributed.checkpoint as dcp

from executor.run import Options
from executor.saved import found
from executor.shrink import Size
from planner.plan import prepare
from planner.strategy import Choices, Degrees, Workload

TINY = Size(hidden=32, layers=2, heads=2, experts=4, seq_len=32)


def plan(model="kimi-k2", choices=Choices(), **degrees):  # noqa: B008
    """A legal plan of 1,024 GPUs."""
    made = prepare(model, "h100-superpod", 1024, Workload(4096, 3072, 1e12), choices, "nemo")
    made = replace(made, degrees=Degrees(1024, **degrees))
    made.check()
    return made


def options(out=None, **how):
    """A short run of the smallest proxy."""
    return replace(Options(ranks=2, steps=6, size=TINY, out=out), **how)


def tensors(saved):
    """Every tensor of a checkpoint, whole."""
    metadata = dcp.FileSystemReader(saved.path).read_metadata().state_dict_metadata
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in metadata.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that one process reads, which is the point
        dcp.load(state, checkpoint_id=saved.path, no_dist=True)
    return state


class When:
    """Calls `act` once, from a thread, as soon as `folder` has a complete checkpoint of at least `step`."""

    def __init__(self, folder, step, act, delay=0.0):
        """`delay` [s] more before `act`."""
        self._thread = threading.Thread(target=self._wait, args=(folder, step, act, delay), daemon=True)
        self._over = threading.Event()

    def __enter__(self):
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *error):
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _wait(self, folder, step, act, delay):
        while not self._over.wait(0.01):
            there = found(folder)
            if there and there[0].step >= step:
                time.sleep(delay)
                act()
                return


def kill(pool, rank, number):
    """An act for `When`: send a signal to one rank of a pool."""
    return lambda: os.kill(pool.pids[rank], number)
