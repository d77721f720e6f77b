"""A backward pass in two parts: products with weights give their input's gradient at once, the weight's on demand.

This is what the W of a zero-bubble schedule is (Qi 2023, arXiv:2401.10241). torch can split any graph by itself, but
walks a recomputed layer once for each weight; here every layer is walked and repeated once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from executor.layers.deferring import deferring, entered
from executor.parallel.collectives import run

_PRODUCTS = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__}


class Deferred(TorchFunctionMode):
    """While active, products with weight matrices leave their weight gradients to `take`."""

    def __init__(self) -> None:
        """Nothing waits."""
        super().__init__()
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def __enter__(self) -> Self:
        """Active until the block ends."""
        entered.append(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *failure: object) -> None:
        """Not active any more."""
        super().__exit__(*failure)  # type: ignore[no-untyped-call]
        entered.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Linear layers and plain products with a trained matrix on the right; all else as it is."""
        if torch.is_grad_enabled() and deferring():
            if func is functional.linear and _trained(args[1]):
                bias = args[2] if len(args) > 2 else (kwargs or {}).get("bias")
                return run(_Product, args[0], args[1].t(), bias, self)
            if func in _PRODUCTS and _trained(args[1]):
                return run(_Product, args[0], args[1], None, self)
            if func is torch.addmm and _trained(args[2]):
                return run(_Product, args[1], args[2], args[0], self)
        return func(*args, **(kwargs or {}))

    def put(self, weight: Tensor, x: Tensor, gradient: Tensor) -> None:
        """Remember a product y = x · weight whose output has `gradient`."""
        self._waiting.append((weight, x, gradient))

    def take(self) -> Callable[[], None]:
        """The weight gradients put since the last time, as work to do later, which adds them to the parameters."""
        waiting, self._waiting = self._waiting, []

        def work() -> None:
            products = [x.flatten(0, -2).t() @ gradient.flatten(0, -2) for _, x, gradient in waiting]
            torch.autograd.backward([weight for weight, _, _ in waiting], products)
            waiting.clear()

        return work


def _trained(weight: Any) -> bool:
    return isinstance(weight, Tensor) and weight.requires_grad and weight.dim() == 2


class _Product(Function):
    """x · weight + bias; the weight is kept aside because recomputed copies of it would not lead to the parameter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, store: Deferred) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.store = weight, store
        return functional.linear(x, weight.t(), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        (x,) = ctx.saved_tensors
        ctx.store.put(ctx.weight, x, gradient)
        dx = gradient @ ctx.weight.t() if ctx.needs_input_grad[0] else None
        bias = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return dx, None, bias, None
