"""Gradient and parameter traffic of data parallelism, ZeRO 0-3 and hybrid shards, exposed, per step."""

from __future__ import annotations

import numpy as np

from planner.collectives.all_reduce import all_reduce
from planner.collectives.base import Group, path
from planner.collectives.ring import all_gather, reduce_scatter
from planner.cost.groups import groups
from planner.cost.kernels import traffic
from planner.cost.overlap import exposed
from planner.cost.update import BUCKET, matrix_gather_time, moved_bytes, orthogonalize_time, prune_bytes
from planner.formula import Count, Num, formula
from planner.setting import Setting
from planner.sharding import Held
from planner.strategy import Degrees


@formula(unit="s", source="Rajbhandari 2020 (ZeRO); Megatron-LM distributed optimizer, fp8-param-gather; PyTorch HSDP")
def data_time(stage: Held, layers: Num, setting: Setting, degrees: Degrees, micro: tuple[Count, Num, Num]) -> Num:
    """Exposed traffic of the states of `stage` with `layers` layers; `micro` = micro-batches, forward, backward [s]."""
    axes = groups(degrees, setting.choices)
    dense = _traffic(stage.dense, axes.data, layers, setting, degrees)
    expert = _traffic(stage.expert, axes.expert_data, layers, setting, degrees)
    reduce, gather = dense[0] + expert[0], dense[1] + expert[1]
    micro_batches, forward, backward = micro
    share = setting.stack.gradient_overlap
    zero = setting.choices.zero
    if zero == 3:
        ahead = share if setting.stack.parameter_prefetch else 0.0
        each = exposed(gather, forward, ahead) + exposed(gather + reduce, backward, np.minimum(ahead, share))
        return micro_batches * each
    if zero == 2:
        return micro_batches * exposed(reduce, backward, share) + exposed(gather, forward, share)
    return exposed(reduce, backward, share) + exposed(gather, forward, share)


def _traffic(size: Num, group: Group, layers: Num, setting: Setting, degrees: Degrees) -> tuple[Num, Num]:
    """Time to reduce the gradients and to gather the parameters of `size` parameters once over `group`."""
    tiers, gradient = setting.tiers, setting.stack.gradient_bytes
    if setting.choices.zero == 3:
        calls: Num = np.maximum(layers, 1.0)
    else:
        calls = np.maximum(size / np.maximum(BUCKET, 1e6 * group.size), 1.0)
    if setting.choices.zero == 0:
        return calls * all_reduce(size * gradient / calls, path(group, tiers)) * (size > 0), 0.0
    ways = group.size / degrees.replicas
    shard = path(Group(ways, group.stride), tiers)
    copies = path(Group(degrees.replicas, group.stride * ways), tiers)
    scatter = all_reduce if setting.stack.scatter_by_reduce else reduce_scatter
    reduce = calls * scatter(size * gradient / calls, shard)
    across = all_reduce(size * gradient / ways, copies)
    gather = calls * all_gather(size * setting.gathered / calls, shard)
    return (reduce + across) * (size > 0), gather * (size > 0)


@formula(unit="s", source="the host's work per layer and pass; parameters and gradients copied in and out of buffers")
def sharding_time(
    stage: Held, layers: Num, setting: Setting, degrees: Degrees, micro_batches: Count
) -> tuple[Num, Num]:
    """Forward and backward work of a rank beside the traffic itself, per step; 0 without data parallelism."""
    stack, zero = setting.stack, setting.choices.zero
    axes = groups(degrees, setting.choices)
    shared = (axes.data.size > 1) | (axes.expert_data.size > 1)
    passes = micro_batches * layers * stack.shard_gap
    gathers = 0 if zero == 0 else micro_batches if zero == 3 else 1
    reductions = micro_batches if zero >= 2 else 1
    size = (stage.dense + stage.expert) * stack.shard_traffic
    gather = traffic(size * setting.value * gathers, setting.gpu)
    reduce = traffic(size * stack.gradient_bytes * reductions, setting.gpu)
    return shared * (passes + gather), shared * (passes + reduce + gather * (zero == 3))


@formula(
    unit="s",
    source="a weight pass adds gradients to memory by itself, where a whole backward pass does in its multiply",
)
def split_time(stage: Held, setting: Setting, micro_batches: Count) -> Num:
    """What the weight passes of a split backward cost beside their multiplies, per step."""
    volume = (stage.dense + stage.expert) * setting.stack.gradient_bytes * micro_batches
    return traffic(volume * setting.stack.split_traffic, setting.gpu)


@formula(unit="s", source="bytes of the update over the achieved HBM bandwidth; the host's work; matrices made whole")
def optimizer_time(stage: Held, setting: Setting, degrees: Degrees) -> Num:
    """One optimizer step on the states that a rank owns."""
    stack = setting.stack
    moved = moved_bytes(stage, setting, degrees) + prune_bytes(stage, setting)
    total = traffic(moved * stack.optimizer_traffic, setting.gpu) + stage.tensors * stack.tensor_gap
    if stage.matrices is None:
        return total
    whole = stage.matrices
    return total + matrix_gather_time(whole, setting, degrees) + orthogonalize_time(whole, setting, degrees)
