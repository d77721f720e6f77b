"""Data parallelism with FSDP2, ZeRO 0-3 and hybrid shards, and when a stage's gradients are reduced.

| zero | parameters gathered | gradients | torch |
| 0 | never | all-reduce once a step | replicate |
| 1 | once a step | reduce-scatter once a step | fully_shard, kept between micro-batches |
| 2 | once a step | reduce-scatter every micro-batch | fully_shard(reshard_after_forward=False) |
| 3 | by layer, forward and backward | reduce-scatter every micro-batch | fully_shard(reshard_after_forward=True) |

Gradients are summed, never averaged: the loss is already a share of the global mean (torchtitan's way).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._composable.replicate_with_fsdp import replicate
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather, DefaultReduceScatter
from torch.distributed.tensor import DTensor, Shard

from executor.layers.block import Block
from executor.layers.moe import Mixture
from executor.mesh import Meshes
from executor.model import Decoder
from executor.parallel.blocks import blocks
from executor.spans import span


class NoSync:
    """The sync of a stage without data parallelism: nothing to do."""

    def before(self, *, complete: bool, last: bool) -> None:
        """Nothing."""

    def after_weights(self, *, last: bool) -> None:
        """Nothing."""


class FsdpSync:
    """Reduces the gradients of one sharded or replicated stage at the passes that `zero` asks for."""

    def __init__(self, module: FSDPModule, zero: int) -> None:
        """`module` is the root that `apply_data` made."""
        self._module = module
        self._zero = zero

    def before(self, *, complete: bool, last: bool) -> None:
        """Complete passes reduce inside autograd, in the background; others keep what they have got."""
        self._set(reduce=complete and (last or self._zero >= 2), reshard=complete and last, last=complete and last)

    def after_weights(self, *, last: bool) -> None:
        """Reduce what was deferred; no hook of autograd saw it."""
        if not last and self._zero < 2:
            return
        self._set(reduce=True, reshard=last, last=last)
        state = self._module._get_fsdp_state()  # noqa: SLF001
        for each in state._state_ctx.all_states:  # noqa: SLF001
            for group in each._fsdp_param_groups:  # noqa: SLF001
                group.post_backward()
        state._root_post_backward_final_callback()  # noqa: SLF001

    def _set(self, *, reduce: bool, reshard: bool, last: bool) -> None:
        self._module.set_requires_gradient_sync(reduce)
        self._module.set_reshard_after_backward(reshard or self._zero == 3)
        self._module.set_is_last_backward(last)


def apply_data(model: Decoder, meshes: Meshes, zero: int, dtype: torch.dtype) -> NoSync | FsdpSync:
    """Shard or replicate a stage in place, layer by layer, and compute in `dtype` with fp32 masters."""
    dense, expert = _mesh(meshes.data, zero), _mesh(meshes.sparse, zero)
    if dense.size() == 1 and expert.size() == 1 and dtype == torch.float32:
        return NoSync()
    policy = MixedPrecisionPolicy(dtype, torch.float32) if dtype != torch.float32 else MixedPrecisionPolicy()
    for block in blocks(model):
        if isinstance(block, Block) and isinstance(block.ffn, Mixture):
            _wrap(block.ffn.experts, expert, zero, policy)
        _wrap(block, dense, zero, policy)
    root = _wrap(model, dense, zero, policy)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no pre-multiplied sum
            module.set_custom_all_gather(_TimedGather())
            module.set_custom_reduce_scatter(_TimedScatter())
    return FsdpSync(root, zero)


def reshard(model: nn.Module) -> None:
    """Drop the gathered parameters of a stage, which a forward pass without a backward one has left."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _mesh(view: DeviceMesh, zero: int) -> DeviceMesh:
    """(replicate, shard), only what is needed of it; all of it flattened for ZeRO 0, which shards nothing."""
    if zero == 0 or view["replicate"].size() == 1:
        return view["shard"]
    return view["replicate", "shard"]


def _wrap(module: nn.Module, mesh: DeviceMesh, zero: int, policy: MixedPrecisionPolicy) -> Any:
    constant = {each for each in module.parameters() if not each.requires_grad}  # corrections, which routers update
    if zero == 0:
        return replicate(module, mesh=mesh, mp_policy=policy, ignored_params=constant)
    ways = mesh.size(mesh.ndim - 1)
    return fully_shard(
        module,
        mesh=mesh,
        reshard_after_forward=zero == 3,
        mp_policy=policy,
        ignored_params=constant,
        shard_placement_fn=lambda parameter: _second(parameter, ways),
    )


def _second(parameter: nn.Parameter, ways: int) -> Shard | None:
    """Stacks of fewer experts than shards are cut along their second dimension."""
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    if local.ndim > 2 and local.size(0) % ways and local.size(1) % ways == 0:
        return Shard(1)
    return None


class _TimedGather(DefaultAllGather):
    def __call__(self, output_tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        with span("all_gather", phase="data", size=output_tensor.nbytes):
            return super().__call__(output_tensor, *arguments, **options)


class _TimedScatter(DefaultReduceScatter):
    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        with span("reduce_scatter", phase="data", size=input_tensor.nbytes):
            return super().__call__(output_tensor, input_tensor, *arguments, **options)


@contextmanager
def timed_all_reduce() -> Iterator[None]:
    """Spans around the all-reduces of FSDP2, the one collective of it that can't be replaced by a custom one."""
    plain = dist.all_reduce

    def timed(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
        with span("all_reduce", phase="data", size=tensor.nbytes):
            return plain(tensor, *arguments, **options)

    dist.all_reduce = timed
    try:
        yield
    finally:
        dist.all_reduce = plain
