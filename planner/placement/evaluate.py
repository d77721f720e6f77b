"""What a placement costs for some tokens: loads, distinct nodes, the busiest NIC, the time of the layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.placement.base import Expert, Grid, Ints, Metrics, Placement, Rates

GOLDEN = 0.6180339887498949  # its multiples fill [0, 1) evenly, whatever the number of tokens


def serve(placement: Placement, ids: Ints, experts: int) -> Ints:
    """The slot that serves each of `ids` [tokens, topk]: an expert's tokens go to its slots by `share`, in turn."""
    table = placement.table(experts)
    if table.shape[1] == 1:
        return np.asarray(table[ids, 0])
    flat = ids.reshape(-1)
    order = np.argsort(flat, kind="stable")
    count = np.bincount(flat, minlength=experts)
    turn = np.empty(flat.size, dtype=np.int64)
    turn[order] = np.arange(flat.size) - (np.cumsum(count) - count)[flat[order]]
    shares = np.where(table >= 0, placement.share[table], 0.0)
    bounds = np.cumsum(shares, axis=1)
    bounds /= bounds[:, -1:]
    point = (turn * GOLDEN + 0.5) % 1.0
    pick = (point[:, None] >= bounds[flat]).sum(axis=1)
    last = np.bincount(placement.slot_expert, minlength=experts)[flat] - 1
    return np.asarray(table[flat, np.minimum(pick, last)].reshape(ids.shape))


def measure(slots: Ints, placement: Placement, src: Ints, grid: Grid, rates: Rates, expert: Expert) -> Metrics:
    """Metrics when `slots` [tokens, topk] serve tokens from GPUs `src` [tokens]."""
    gpus, each = grid.gpus, grid.gpus_per_node
    nics = grid.nics or each
    src = src.astype(np.int64)
    target = placement.slot_gpu[slots]
    load = np.bincount(target.ravel(), minlength=gpus)
    home = src // each
    node, new_node = _first(target // each)
    gpu, new_gpu = _first(target)
    source = np.broadcast_to(src[:, None], target.shape)
    remote = new_node & (node != home[:, None])
    landing = node * each + (src % each)[:, None]  # the rail peer of the source

    def nic(gpu: Ints) -> Ints:
        return (gpu // each) * nics + (gpu % each) * nics // each

    sent = np.bincount(nic(source[remote]), minlength=grid.nodes * nics)
    received = np.bincount(nic(landing[remote]), minlength=grid.nodes * nics)
    hop = np.where(gpu // each == home[:, None], source, (gpu // each) * each + (src % each)[:, None])
    forward = new_gpu & (hop != gpu)
    out, into = (np.bincount(x[forward], minlength=gpus) for x in (hop, gpu))
    busiest_nic, busiest_gpu = max(sent.max(), received.max()), max(out.max(), into.max())
    h = expert.hidden
    exchange = sum(
        rates.alpha + max(busiest_nic * h * b / rates.nic, busiest_gpu * h * b / rates.nvlink)
        for b in (rates.dispatch_bytes, rates.combine_bytes)
    )
    gemm = 6.0 * h * expert.ffn * load.max() / rates.flops
    by_node = load.reshape(grid.nodes, each).sum(axis=1)
    return Metrics(
        balance=float(load.max() / load.mean()),
        node_balance=float(by_node.max() / by_node.mean()),
        nodes_per_token=float(new_node.sum(axis=1).mean()),
        remote_nodes=float(remote.sum(axis=1).mean()),
        nic_bytes=float(busiest_nic * h * rates.dispatch_bytes),
        nvlink_bytes=float(busiest_gpu * h * rates.dispatch_bytes),
        all_to_all_s=float(exchange),
        gemm_s=float(gemm),
        layer_s=float(exchange + gemm),
    )


def evaluate(
    placement: Placement, ids: Ints, src: Ints, experts: int, grid: Grid, rates: Rates, expert: Expert
) -> Metrics:
    """Metrics of a placement whose replicas serve by share, for `ids` [tokens, topk] from GPUs `src` [tokens]."""
    return measure(serve(placement, ids, experts), placement, src, grid, rates, expert)


def _first(values: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Each row sorted, and which entries are the first of their value in the row."""
    ordered = np.sort(values, axis=1)
    new = np.ones(ordered.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return ordered, new
