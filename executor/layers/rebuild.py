"""Selective recompute: what is cheap to compute again is not kept, and is rebuilt when the backward pass asks for it.

A layer computes cheap tensors (norm outputs, activations, MLA's keys and values) by `rebuilt(function, *inputs)`.
Inside `selective()` whoever would keep such a tensor keeps how to make it instead; the inputs are kept anyway, or are
themselves rebuilt. Unlike a checkpoint of the whole layer, nothing else runs twice (Megatron-Core's output-discarding
checkpoint; Korthikanti 2022, section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

Packed = Any  # a tensor, or a _Piece of one that is rebuilt


class _Recipe:
    """How to make one tensor again; made once for all who ask, and dropped when the last of them is gone."""

    def __init__(self, function: Callable[..., Tensor], inputs: tuple[Packed, ...]) -> None:
        self._function, self._inputs = function, inputs
        self._made: Tensor | None = None
        self.wanted = 0

    def make(self) -> Tensor:
        """The tensor; the last one who asks takes the copy with him."""
        if self._made is None:
            with torch.no_grad():
                self._made = self._function(*(unpack(each) for each in self._inputs))
        made = self._made
        self.wanted -= 1
        if self.wanted <= 0:
            self._made = None
        return made


class _Piece:
    """A view of a tensor that is rebuilt."""

    def __init__(self, recipe: _Recipe, view: Tensor) -> None:
        recipe.wanted += 1
        self._recipe = recipe
        self._layout = (view.size(), view.stride(), view.storage_offset())

    def make(self) -> Tensor:
        """The view."""
        return self._recipe.make().as_strided(*self._layout)


class _Region:
    """One forward pass of one layer: the recipes by the storage of what they make."""

    def __init__(self) -> None:
        self._recipes: dict[int, tuple[StorageWeakRef, torch.dtype, _Recipe]] = {}

    def add(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        """`function(*inputs)`, remembered."""
        made = function(*inputs)
        storage = made.untyped_storage()
        recipe = _Recipe(function, tuple(self.pack(each) for each in inputs))
        # the weak reference keeps the address from being used again while the region lives
        self._recipes[storage._cdata] = (StorageWeakRef(storage), made.dtype, recipe)  # noqa: SLF001
        return made

    def pack(self, tensor: Tensor) -> Packed:
        """What is kept for `tensor`."""
        found = self._recipes.get(tensor.untyped_storage()._cdata)  # noqa: SLF001 (the storage's identity)
        return _Piece(found[2], tensor) if found is not None and found[1] == tensor.dtype else tensor


_regions: list[_Region] = []


def unpack(packed: Packed) -> Tensor:
    """The tensor that was packed."""
    return packed.make() if isinstance(packed, _Piece) else packed


def rebuilt(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, one tensor that is cheap to make again; `function` must not keep its own output."""
    return _regions[-1].add(function, inputs) if _regions else function(*inputs)


@contextmanager
def selective() -> Iterator[None]:
    """Inside, autograd keeps no tensor made by `rebuilt`."""
    region = _Region()
    _regions.append(region)
    try:
        with saved_tensors_hooks(region.pack, unpack):
            yield
    finally:
        _regions.pop()


def apply_selective(layer: nn.Module) -> None:
    """Run every forward pass of `layer` inside `selective()`."""
    forward = layer.forward

    def rebuilding(*arguments: Any, **options: Any) -> Any:
        with selective():
            return forward(*arguments, **options)

    layer.forward = rebuilding
