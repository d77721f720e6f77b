"""Parameters that several pipeline chunks hold: the tied output matrix, and the embedding of prediction modules.

Each chunk starts from the same numbers and adds its own gradient; the sum of all keeps the copies equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from executor.clip import local
from executor.mesh import Meshes
from executor.model import Decoder
from executor.parallel.collectives import all_reduce

TIED = "head.output.weight"
EMBEDDING = "embedding.tokens.weight"


def canonical(name: str, *, tied: bool) -> str:
    """The one name of a parameter: a tied output matrix is the embedding's."""
    return EMBEDDING if tied and name == TIED else name


@dataclass(frozen=True)
class _Copy:
    """A parameter of this rank that others hold too, and the group of the ranks that do."""

    parameter: nn.Parameter
    group: dist.ProcessGroup


class Copies:
    """The copies of one pipeline; every rank must make it."""

    def __init__(self, modules: Sequence[Decoder], meshes: Meshes, *, tied: bool) -> None:
        """`modules` are this rank's chunks in order of depth. Raises ValueError when one rank has the same twice."""
        pp, rank = meshes.size("pp"), meshes.rank("pp")
        mine = {chunk * pp + rank: _shared_names(module, tied=tied) for chunk, module in enumerate(modules)}
        everyone: list[dict[int, dict[str, str]]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(everyone, mine)
        self._copies: list[_Copy] = []
        self._behind: set[tuple[int, str]] = set()
        dim = (meshes.dense.mesh_dim_names or ()).index("pp")
        for column in meshes.dense.mesh.movedim(dim, -1).reshape(-1, pp).tolist():
            chunks = {chunk: names for member in column for chunk, names in everyone[member].items()}
            for name in sorted({name for names in chunks.values() for name in names}):
                holders = [chunk for chunk in sorted(chunks) if name in chunks[chunk]]
                if len(holders) > 1:
                    ranks = sorted({column[chunk % pp] for chunk in holders})
                    if len(ranks) < len(holders):
                        raise ValueError(f"one rank has two chunks that hold {name}; take another vpp")
                    group = dist.new_group(ranks)
                    if dist.get_rank() in ranks:
                        self._add(modules, group, {c: chunks[c][name] for c in holders}, pp, rank)

    def sum_gradients(self) -> None:
        """Add the gradients of all copies of each parameter; a chunk that did not use its own adds nothing."""
        for each in self._copies:
            gradient = each.parameter.grad
            if gradient is None:
                gradient = torch.zeros_like(each.parameter)
            total = all_reduce(local(gradient), each.group, "pipeline")
            local(gradient).copy_(total)
            each.parameter.grad = gradient

    def counts(self, chunk: int, name: str) -> bool:
        """Whether the parameter of local chunk number `chunk` is the first of its copies, which stands for all."""
        return (chunk, name) not in self._behind

    def _add(
        self, modules: Sequence[Decoder], group: dist.ProcessGroup, holders: dict[int, str], pp: int, rank: int
    ) -> None:
        first = min(holders)
        for chunk, name in holders.items():
            if chunk % pp == rank:
                parameter = dict(modules[chunk // pp].named_parameters())[name]
                self._copies.append(_Copy(parameter, group))
                if chunk != first:
                    self._behind.add((chunk // pp, name))


def _shared_names(module: Decoder, *, tied: bool) -> dict[str, str]:
    """Names in a chunk by their canonical ones, of the parameters that other chunks may hold."""
    names = [name for name, _ in module.named_parameters()]
    return {
        canonical(name, tied=tied): name for name in names if name.startswith("embedding.") or (tied and name == TIED)
    }


def whole(tensors: dict[str, Tensor], pipeline: dist.ProcessGroup) -> dict[str, Tensor]:
    """The tensors of all stages, each whole and on the CPU, on the first rank of every pipeline; {} on the others."""
    mine = {name: _full(tensor).detach().cpu() for name, tensor in tensors.items()}
    first = pipeline.rank() == 0
    parts: list[dict[str, Tensor]] | None = [{} for _ in range(pipeline.size())] if first else None
    dist.gather_object(mine, parts, group=pipeline, group_dst=0)
    return {name: tensor for part in parts or () for name, tensor in part.items()}


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
