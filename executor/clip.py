"""The norm of a gradient that many ranks hold in pieces, and clipping by it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, the tensor itself when it is whole; shares memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def total_norm(gradients: Iterable[Tensor], pipeline: dist.ProcessGroup) -> Tensor:
    """L2 norm over all `gradients` of all ranks: each piece counted once, copies not again.

    Sums of squares are added over the mesh axes that shard a gradient, then over the stages of the `pipeline` group.
    Collective over all ranks.
    """
    classes: dict[tuple[dist.ProcessGroup, ...], list[Tensor]] = defaultdict(list)
    for gradient in gradients:
        classes[_sharding(gradient)].append(local(gradient))
    total = torch.zeros(())
    for groups, members in classes.items():  # in the order of the parameters, the same on all ranks of a stage
        square = get_total_norm(members).square()
        for group in groups:
            dist.all_reduce(square, group=group)
        total = total.to(square.device) + square
    dist.all_reduce(total, group=pipeline)
    return total.sqrt()


def clip(parameters: Iterable[Tensor], norm: Tensor, most: float) -> None:
    """Scale the gradients of this rank's (local) parameters so that their total `norm` is at most `most`."""
    clip_grads_with_norm_(parameters, most, norm)


def _sharding(gradient: Tensor) -> tuple[dist.ProcessGroup, ...]:
    """The groups over which a gradient is cut."""
    if not isinstance(gradient, DTensor):
        return ()
    mesh = gradient.device_mesh
    cut = (axis for axis, placement in enumerate(gradient.placements) if not isinstance(placement, Replicate))
    return tuple(mesh.get_group(axis) for axis in cut if mesh.size(axis) > 1)
