"""Twin of planner.layers.moe: router, dispatcher, grouped experts, shared experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from executor.layers.base import Spec, has_data, local, matrix
from executor.layers.deferring import deferring
from executor.layers.ffn import FeedForward
from executor.layers.fused import activate, add_rows
from executor.layers.rebuild import rebuilt
from executor.layers.router import Router, Routing

Dispatcher = Callable[[Tensor, Tensor, Tensor, "Experts"], Tensor]


class Experts(nn.Module):
    """All experts as grouped weights: `up`, `gate` [experts, hidden, width], `down` [experts, width, hidden].

    ep cuts dim 0, etp the width. Biases [experts, outputs] where the model has them.
    """

    def __init__(self, spec: Spec) -> None:
        """The experts of a layer's parts."""
        super().__init__()
        up, down = spec.linear("experts_up"), spec.linear("experts_down")
        gated = up.outputs == 2 * down.inputs
        shape, bias = (up.copies, up.inputs, down.inputs), (up.copies, down.inputs)
        self.number = up.copies  # known where the weights are sharded too
        self.up = nn.Parameter(torch.empty(shape))
        self.gate = nn.Parameter(torch.empty(shape)) if gated else None
        self.down = nn.Parameter(torch.empty(down.copies, down.inputs, down.outputs))
        self.up_bias = nn.Parameter(torch.empty(bias)) if up.bias else None
        self.gate_bias = nn.Parameter(torch.empty(bias)) if up.bias and gated else None
        self.down_bias = nn.Parameter(torch.empty(down.copies, down.outputs)) if down.bias else None

    def forward(self, rows: Tensor, counts: Tensor, weights: Tensor) -> Tensor:
        """`rows` [m, hidden] sorted by local expert, `counts` [local experts], `weights` [m] -> [m, hidden].

        The weights join in the activation, so that the output need not be kept for their gradient (Megatron-Core).
        """
        sizes = _sizes(rows, counts)
        up = grouped(rows, self.up, self.up_bias, sizes)
        if self.gate is None:
            inner = rebuilt(lambda up, weights: activate(up, None, weights), up, weights)
        else:
            inner = rebuilt(activate, up, grouped(rows, self.gate, self.gate_bias, sizes), weights)
        out = grouped(inner, self.down, None, sizes)
        if self.down_bias is None:
            return out
        shifts = zip(weights.split(sizes), local(self.down_bias).unbind(0), strict=True)
        return out + torch.cat([torch.outer(weight, shift) for weight, shift in shifts])


def grouped(rows: Tensor, weight: Tensor, bias: Tensor | None, sizes: list[int]) -> Tensor:
    """Each group of rows times its matrix: `rows` [m, inputs], `weight` [groups, inputs, outputs] -> [m, outputs]."""
    matrices = local(weight)
    if bias is None and not deferring():
        return _Grouped.apply(rows, matrices, sizes)  # type: ignore[no-untyped-call, no-any-return]
    pieces = zip(rows.split(sizes), matrices.unbind(0), strict=True)
    if bias is None:
        return torch.cat([piece @ each for piece, each in pieces])
    shifts = local(bias).unbind(0)
    return torch.cat([torch.addmm(shift, *pair) for shift, pair in zip(shifts, pieces, strict=True)])


class _Grouped(Function):
    """The products of all groups, written in place: autograd alone would copy every group's gradient once more."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.sizes = sizes
        out = rows.new_empty(len(rows), weight.size(2))
        _write(out.split(sizes), rows.split(sizes), weight.unbind(0))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        given, of_rows, of_weight = gradient.split(ctx.sizes), None, None
        if ctx.needs_input_grad[0]:
            of_rows = torch.empty_like(rows)
            _write(of_rows.split(ctx.sizes), given, weight.mT.unbind(0))
        if ctx.needs_input_grad[1]:
            of_weight = torch.empty_like(weight)
            _write(of_weight.unbind(0), [piece.t() for piece in rows.split(ctx.sizes)], given)
        return of_rows, of_weight, None


def _write(places: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
    """The product of each pair into its place."""
    for place, one, other in zip(places, left, right, strict=True):
        torch.mm(one, other, out=place)


def _sizes(rows: Tensor, counts: Tensor) -> list[int]:
    """Rows of each group; without data (meta and fake tensors) an even split, which costs the same FLOP."""
    if has_data(counts):
        return [int(count) for count in counts.tolist()]
    each, more = divmod(len(rows), len(counts))
    return [each + (index < more) for index in range(len(counts))]


def dispatch(x: Tensor, ids: Tensor, weights: Tensor, experts: Experts) -> Tensor:
    """All experts on this rank: sort the copies of the tokens by expert, run, add up. `x` [n, hidden] -> the same."""
    flat = ids.flatten()
    order = flat.argsort(stable=True)
    tokens = torch.zeros(experts.number + 1, dtype=torch.int64, device=x.device)
    tokens = tokens.scatter_add(0, flat + 1, torch.ones_like(flat))  # the first counts what the capacity dropped
    if has_data(ids):
        order = order[int(tokens[0]) :]
    source = order // ids.size(-1)
    out = experts(x.index_select(0, source), tokens[1:], weights.flatten()[order])
    return add_rows(out, source, len(x))


class Mixture(nn.Module):
    """The mixture: `dispatcher` brings tokens to the routed experts and back; the shared experts see every token."""

    def __init__(self, spec: Spec, routing: Routing) -> None:
        """The mixture of a layer's parts."""
        super().__init__()
        self.router = Router(spec, routing)
        self.experts = Experts(spec)
        self.dispatcher: Dispatcher = dispatch
        self.shared = FeedForward(spec, "shared_") if "shared_up" in spec.names else None
        self.shared_gate = matrix(spec.linear("shared_gate")) if "shared_gate" in spec.names else None

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """`x` [b, s, hidden] -> the same; the shared experts read `beside` where the layer has a norm for it."""
        flat = x.flatten(0, -2)
        ids, weights = self.router(flat)
        out = self.dispatcher(flat, ids, weights, self.experts).view_as(x)
        if self.shared is None:
            return out
        shared = self.shared(x if beside is None else beside)
        if self.shared_gate is not None:
            shared = shared * self.shared_gate(x).sigmoid()
        return out + shared  # type: ignore[no-any-return]
