"""Between a rank's piece of a parameter and the whole of it: what an update needs that looks at whole matrices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def placed(piece: Tensor, like: Tensor) -> Tensor:
    """`piece`, of the local shape of `like`, as the DTensor that `like` is; itself where `like` is whole.

    What has another shape (a count of steps, the factors of a matrix) is whole on every rank and stays as it is.
    """
    if not isinstance(like, DTensor) or piece.shape != like.to_local().shape:
        return piece
    return DTensor.from_local(
        piece, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def gathered(piece: Tensor, like: Tensor) -> Tensor:
    """The whole tensor of which `piece` is this rank's part, cut as `like` is; every rank that cuts it must call."""
    whole = placed(piece, like)
    return whole.full_tensor() if isinstance(whole, DTensor) else whole


def own(whole: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a `whole` tensor, cut as `like` is; a view."""
    if not isinstance(like, DTensor):
        return whole
    shape, start = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    for dim, (size, first) in enumerate(zip(shape, start, strict=True)):
        whole = whole.narrow(dim, first if size else 0, size)
    return whole


def spread(like: Tensor) -> bool:
    """Whether a parameter is cut over ranks."""
    return isinstance(like, DTensor) and like.to_local().shape != like.shape


@torch.no_grad()
def replace(piece: Tensor, whole: Tensor, like: Tensor) -> None:
    """Write this rank's part of `whole` into `piece`."""
    piece.copy_(own(whole, like))
