"""Ways to cut a module over tp: torch's parallel styles that compute on this rank's slices.

Parameters are DTensors; products are local, as torch's own styles would do at a higher cost per call.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle
from torch.nn import functional

from executor.layers.base import local
from executor.layers.head import ClassHead
from executor.layers.norm import WideNorm
from executor.parallel.collectives import Group, copy, gather, reduce, scatter
from executor.parallel.context import turn

PHASE = "tensor"


class Region:
    """The way in and out of the cut part of a layer: whole tokens inside, a cut of them outside under `sequence`."""

    def __init__(self, mesh: DeviceMesh, *, sequence: bool) -> None:
        """Over the one axis of `mesh`."""
        self.group: Group = mesh.get_group()
        self.mesh, self.sequence = mesh, sequence

    @property
    def whole(self) -> Region:
        """The same ranks, where each has everything outside."""
        return Region(self.mesh, sequence=False)

    def enter(self, x: Tensor) -> Tensor:
        """[b, s, …] of all tokens; its gradient is summed over the ranks."""
        return gather(x, 1, self.group, PHASE) if self.sequence else copy(x, self.group, PHASE)

    def leave(self, x: Tensor) -> Tensor:
        """The sum of the ranks' parts [b, s, …], of this rank's tokens."""
        return scatter(x, 1, self.group, PHASE) if self.sequence else reduce(x, self.group, PHASE)

    def total(self, x: Tensor) -> Tensor:
        """Sum of `x` over the ranks, in both directions."""
        return copy(reduce(x, self.group, PHASE), self.group, PHASE)


def cut(module: nn.Module, name: str, mesh: DeviceMesh, *dims: int | None) -> None:
    """Replace a parameter by the DTensor of this rank's slice: one dim for each axis of the mesh, None for a copy.

    Every rank has the whole parameter before.
    """
    whole = getattr(module, name)
    if whole is not None:
        placements = [Replicate() if dim is None else Shard(dim) for dim in dims]
        sharded = distribute_tensor(whole.detach(), mesh, placements, src_data_rank=None)
        module.register_parameter(name, nn.Parameter(sharded, requires_grad=whole.requires_grad))


class Entered(ParallelStyle):
    """A block that gathers its first input once for all its column cuts."""

    def __init__(self, region: Region) -> None:
        """Through `region`."""
        self.region = region

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        module.register_forward_pre_hook(lambda _module, inputs: (self.region.enter(inputs[0]), *inputs[1:]))
        return module


class Left(ParallelStyle):
    """A block on this rank's tokens whose output is wanted for all tokens."""

    def __init__(self, region: Region) -> None:
        """Into `region`."""
        self.region = region

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        module.register_forward_hook(lambda _module, _inputs, output: self.region.enter(output))
        return module


class Column(ParallelStyle):
    """A matrix cut by its outputs; with `region` it gathers its input itself."""

    def __init__(self, region: Region | None = None, *, turned: bool = False) -> None:
        """`turned`: the output goes back to whole channels and this rank's tokens."""
        self.region, self.turned = region, turned

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        cut(module, "weight", device_mesh, 0)
        cut(module, "bias", device_mesh, 0)
        module.forward = partial(self._product, module)
        return module

    def _product(self, module: Any, x: Tensor) -> Tensor:
        x = x if self.region is None else self.region.enter(x)
        y = functional.linear(x, local(module.weight), None if module.bias is None else local(module.bias))
        return turn(y, 1, 2, self.region.group, PHASE) if self.turned and self.region is not None else y


class Row(ParallelStyle):
    """A matrix cut by its inputs; the bias is added to the sum."""

    def __init__(self, region: Region) -> None:
        """The sum leaves through `region`."""
        self.region = region

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        cut(module, "weight", device_mesh, 1)
        module.forward = partial(self._product, module)
        return module

    def _product(self, module: Any, x: Tensor) -> Tensor:
        y = self.region.leave(functional.linear(x, local(module.weight)))
        return y if module.bias is None else y + module.bias


class Rows(ParallelStyle):
    """A table cut by its rows: what another rank holds counts 0 here and comes with the sum."""

    def __init__(self, region: Region) -> None:
        """The sum leaves through `region`."""
        self.region = region

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        cut(module, "weight", device_mesh, 0)
        module.forward = partial(self._lookup, module)
        return module

    def _lookup(self, module: Any, ids: Tensor) -> Tensor:
        table = local(module.weight)
        ids = ids - self.region.group.rank() * table.size(0)
        held = (ids >= 0) & (ids < table.size(0))
        found = functional.embedding(ids.clamp(0, table.size(0) - 1), table)
        return self.region.leave(found * held.unsqueeze(-1).to(found.dtype))


class Positions(ParallelStyle):
    """A whole table of positions, of which this rank's tokens need a part."""

    def __init__(self, region: Region) -> None:
        """The tokens are cut as in `region`."""
        self.region = region

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        group = self.region.group
        if self.region.sequence:
            module.register_forward_pre_hook(lambda _module, inputs: inputs[0].chunk(group.size())[group.rank()])
        return module


class Types(ParallelStyle):
    """A whole table of token types, of which this rank's tokens need a part."""

    def __init__(self, region: Region) -> None:
        """The tokens are cut as in `region`."""
        self.region = region

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        group = self.region.group
        if self.region.sequence:
            module.register_forward_pre_hook(lambda _module, inputs: inputs[0].chunk(group.size(), 1)[group.rank()])
        return module


class Pictures(ParallelStyle):
    """Patches, computed on every rank, of which this rank goes on with its part."""

    def __init__(self, region: Region) -> None:
        """The tokens are cut as in `region`."""
        self.region = region

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        group = self.region.group
        if self.region.sequence:
            module.register_forward_hook(lambda _module, _inputs, x: x.chunk(group.size(), 1)[group.rank()])
        return module


class First(ParallelStyle):
    """A classifier of the first token, which under `sequence` the first rank alone has; a pooler is cut by columns."""

    def __init__(self, region: Region) -> None:
        """The tokens are cut as in `region`."""
        self.region = region

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if isinstance(module, ClassHead):
            module.first = partial(self._first, pooled=module.pooler is not None)
        return module

    def _first(self, x: Tensor, *, pooled: bool) -> Tensor:
        group, token = self.region.group, x[:, 0]
        if self.region.sequence:
            token = reduce(token * float(group.rank() == 0), group, PHASE)
        return copy(token, group, PHASE) if pooled else token


class Bias(ParallelStyle):
    """A bias of a cut vocabulary."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        cut(module, "bias", device_mesh, 0)
        return module


class Whole(ParallelStyle):
    """A norm over a cut width."""

    def __init__(self, region: Region) -> None:
        """Sums of squares are added over `region`."""
        self.region = region

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if isinstance(module, WideNorm):
            cut(module, "weight", device_mesh, 0)
            module.reduce, module.ways = self.region.total, self.region.group.size()
        return module


class Sinks(ParallelStyle):
    """A core whose sinks follow the heads."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if getattr(module, "sinks", None) is not None:
            cut(module, "sinks", device_mesh, 0)
        return module


class OneHead(ParallelStyle):
    """Keys or values of fewer heads than ranks: whole weights, of which this rank keeps the head that it needs."""

    def __init__(self, heads: int) -> None:
        """`heads` of keys, a divisor of the ranks."""
        self.heads = heads

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        head = device_mesh.get_local_rank() * self.heads // device_mesh.size()
        module.register_forward_hook(lambda _module, _inputs, output: output.chunk(self.heads, -1)[head])
        return module
