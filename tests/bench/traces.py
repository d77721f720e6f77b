"""Routing traces for the bench: made-up ones, and real ones from a folder of .npz files with `ids` and `seq`."""

import os
from pathlib import Path

import numpy as np

from planner.placement.base import Trace

FOLDER = os.environ.get("PLACEMENT_TRACES", "")


def real() -> dict[str, list[Trace]]:
    """Traces of the folder by name, sources not dealt yet: those of one router pooled, checkpoints as a series.

    A router's files share what stands before the first `_` of their names; `ids_0`, `ids_1`, … in a file are a series.
    """
    found: dict[str, list[Trace]] = {}
    for path in sorted(Path(FOLDER).glob("*.npz")) if FOLDER else ():
        with np.load(path) as data:
            names = [name for name in data.files if name.split("_")[0] == "ids"]
            series = [data[name].astype(np.int64) for name in sorted(names, key=lambda name: int(f"0{name[4:]}"))]
            seq = data["seq"].astype(np.int64) if "seq" in data.files else None
        if not series or seq is None:
            continue
        experts = 1 << (max(int(ids.max()) for ids in series)).bit_length()
        made = [Trace(ids, np.zeros_like(seq), experts, seq) for ids in series]
        name = path.stem.split("_")[0]
        if len(made) == 1 and name in found:
            made = [_pooled(found[name][0], made[0])]
        found[name] = made
    return found


def _pooled(one: Trace, other: Trace) -> Trace:
    """Both traces as one; sequences stay apart."""
    seq = np.concatenate([one.seq, other.seq + one.seq.max() + 1])
    return Trace(np.concatenate([one.ids, other.ids], axis=1), np.zeros_like(seq), one.experts, seq)


def dealt(trace: Trace, gpus: int, seed: int = 0) -> Trace:
    """The trace with whole sequences on GPUs: longest first to the GPU with the fewest tokens."""
    _, place, size = np.unique(trace.seq, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(size.size)
    fill, home = np.zeros(gpus), np.zeros(size.size, dtype=np.int64)
    for number in order[np.argsort(-size[order], kind="stable")]:
        home[number] = fill.argmin()
        fill[home[number]] += size[number]
    return Trace(trace.ids, home[place], trace.experts, trace.seq)


def router_groups(trace: Trace) -> int:
    """Groups that the router keeps to: the finest of which no token visits as many as it could; else 1."""
    topk = trace.ids.shape[2]
    for groups in (32, 16, 8, 4):
        group = np.sort(trace.ids[0] // (trace.experts // groups), axis=1)
        visited = 1 + (np.diff(group, axis=1) > 0).sum(axis=1).max()
        if visited < min(topk, groups):
            return groups
    return 1
