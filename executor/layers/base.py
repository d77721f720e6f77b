"""What the twins read: the planner's parts of one layer, by name, and the torch modules of single parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.tensor import DTensor

from planner.layers.base import Core, Linear, Parts, Pointwise, Table, Vector

Kind = TypeVar("Kind", Linear, Vector, Table, Core, Pointwise)


@dataclass(frozen=True)
class Spec:
    """The parts of one layer; every size of a twin is read off them, so twin and planner can't disagree silently."""

    parts: Parts

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all parts."""
        return frozenset(part.name for part in self.parts)

    @cached_property
    def work(self) -> frozenset[str]:
        """Names of the memory-bound parts."""
        return frozenset(part.name for part in self.parts if isinstance(part, Pointwise))

    def linear(self, name: str) -> Linear:
        """The matrix called `name`."""
        return self._one(Linear, name)

    def core(self) -> Core:
        """The attention product."""
        return self._one(Core, "core")

    def pointwise(self, name: str) -> Pointwise:
        """The memory-bound work called `name`."""
        return self._one(Pointwise, name)

    def vector(self, name: str) -> Vector:
        """The vector called `name`."""
        return self._one(Vector, name)

    def table(self, name: str) -> Table:
        """The lookup table called `name`."""
        return self._one(Table, name)

    def vectors(self, name: str, width: int) -> int:
        """Learned vectors of `width` channels under `name`: 0 (none), 1 (gain) or 2 (gain and bias)."""
        return self.vector(name).size // width if name in self.names else 0

    def _one(self, kind: type[Kind], name: str) -> Kind:
        return next(part for part in self.parts if isinstance(part, kind) and part.name == name)


def matrix(part: Linear, outputs: int | None = None) -> nn.Linear:
    """The matrix of a part, or the slice of `outputs` of it where the planner counts several matrices as one."""
    return nn.Linear(part.inputs, part.outputs if outputs is None else outputs, bias=part.bias)


def has_data(tensor: Tensor) -> bool:
    """Whether a tensor has values, which meta and fake tensors don't."""
    return not (tensor.is_meta or isinstance(tensor, FakeTensor))


def local(parameter: Tensor) -> Tensor:
    """This rank's slice of a parameter, whether sharded or plain."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
