"""The weights that compression works on, as this rank holds them, and sums over them that count every weight once.

Matrices, kernels of convolutions and stacks of experts are compressed; embeddings, norms, heads, routers and prediction
modules are not, unless the caller says so: they are small, and first and last layers lose most (Zhu & Gupta 2017,
arXiv:1710.01878).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

SPARED = frozenset({"embedding", "norm", "norms", "head", "router", "mtp", "distill_projection"})
"""Pieces of a parameter's name that keep it as it is; what is left is what `planner.precision.LOW_PRECISION` names."""
INPUTS = 1  # the dimension of the inputs: [out, in], [out, in, height, width], experts [experts, in, out]


class Holds(Protocol):
    """What a trainer's `held` and `pieces` below have in common."""

    @property
    def name(self) -> str:
        """Canonical name."""

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter: a DTensor where axes cut it."""

    @property
    def piece(self) -> Tensor:
        """This rank's part of it, sharing memory."""

    @property
    def counts(self) -> bool:
        """Whether it stands for all its copies in other chunks."""


@dataclass(frozen=True)
class Whole:
    """A parameter of a module in one process: the piece is all of it."""

    name: str
    parameter: nn.Parameter
    counts: bool = True

    @property
    def piece(self) -> Tensor:
        """The values."""
        return self.parameter.data


def pieces(module: nn.Module) -> list[Whole]:
    """The parameters of a module that no axis cuts, as `chosen` takes them."""
    return [Whole(name, parameter) for name, parameter in module.named_parameters()]


def compressible(name: str, shape: torch.Size | tuple[int, ...], spared: frozenset[str] = SPARED) -> bool:
    """Whether a parameter of this name and whole shape is compressed."""
    return len(shape) > 1 and not name.endswith("bias") and not spared & set(name.split("."))


def chosen(held: Iterable[Holds], spared: frozenset[str] = SPARED) -> list[Holds]:
    """Those of `held` that are compressed, in their order."""
    return [each for each in held if compressible(each.name, each.parameter.shape, spared)]


def cuts(parameter: Tensor, dim: int | None = None) -> Iterator[dist.ProcessGroup]:
    """The groups over which a parameter is cut, along `dim` alone or along any."""
    if isinstance(parameter, DTensor):
        mesh = parameter.device_mesh
        for axis, placement in enumerate(parameter.placements):
            cut = not isinstance(placement, Replicate) and (dim is None or placement.is_shard(dim))
            if cut and mesh.size(axis) > 1:
                yield mesh.get_group(axis)


def rows(weight: Tensor) -> Tensor:
    """A weight as [outputs, inputs]: kernels with their channels innermost, experts one below another."""
    if weight.dim() == 3:  # [experts, in, out]
        return weight.transpose(1, 2).flatten(0, 1)
    matrix: Tensor = weight.movedim(INPUTS, -1).flatten(1)
    return matrix


def unrows(matrix: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The inverse of `rows`, contiguous, for a weight of `shape`."""
    if len(shape) == 3:
        stack: Tensor = matrix.unflatten(0, (shape[0], shape[2]))
        return stack.transpose(1, 2).contiguous()
    return matrix.reshape(shape[0], *shape[2:], shape[INPUTS]).movedim(-1, INPUTS).contiguous()


def total(
    targets: Iterable[Holds], measure: Callable[[Tensor], Tensor], pipeline: dist.ProcessGroup | None = None
) -> Tensor:
    """The sum of `measure(piece)` over the weights of all ranks, copies once; collective where something is cut.

    `pipeline` is the group of the stages, None when one rank has all of the depth.
    """
    classes: dict[tuple[dist.ProcessGroup, ...], list[Tensor]] = defaultdict(list)
    for each in targets:
        if each.counts:
            classes[tuple(cuts(each.parameter))].append(each.piece)
    found = torch.zeros_like(measure(torch.zeros(0)))
    for groups, members in classes.items():
        part = sum((measure(piece) for piece in members), torch.zeros_like(found))
        for group in groups:
            dist.all_reduce(part, group=group)
        found = found + part
    if pipeline is not None and pipeline.size() > 1:
        dist.all_reduce(found, group=pipeline)
    return found
