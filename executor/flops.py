"""FLOP of a twin, counted operator by operator, to hold the planner's formulas to.

torch's counter knows matrix products. The CPU's fused attention and the executor's own operator are registered here in
the same convention: every score that a block computes counts, masked or not (the planner's `causal=False`), and the
backward pass counts its four gradient products, twice the forward pass; the scores that it computes again are no model
FLOP (Narayanan 2021, appendix).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from executor.layers.base import Spec
from executor.layers.block import Block
from executor.layers.flash import Reach
from executor.layers.head import Prediction
from executor.layers.linear_attention import CHUNK
from executor.layers.router import Routing
from executor.model import embedding_twin, head_twin, layer_twin
from planner.layers.base import Core
from planner.model import Layer, core_flops

Sizes = torch.Size | tuple[int, ...]


@dataclass(frozen=True)
class Counted:
    """FLOP of one pass over some tokens."""

    forward: int
    backward: int


def kernel_flops(q: Sizes, k: Sizes, v: Sizes, *_rest: Any, **_options: Any) -> int:
    """Forward: `q` [b, heads, s, d] against every key `k` [b, groups, t, d], then the values `v` [b, groups, t, dv]."""
    batch, heads, queries, width = q
    return 2 * batch * heads * queries * k[2] * (width + v[3])


def kernel_backward_flops(_gradient: Sizes, q: Sizes, k: Sizes, v: Sizes, *_rest: Any, **_options: Any) -> int:
    """Backward: gradients of the weights and of v, of q and of k."""
    return 2 * kernel_flops(q, k, v)


def attention_flops(
    q: Sizes, k: Sizes, v: Sizes, _sinks: Any, _at: Any, kv_at: Any, window: int, chunked: Any, **_more: Any
) -> int:
    """Forward of `executor::attention`: each query against the keys of its block."""
    length = k[2]
    keys = length if kv_at is not None else Reach(window, chunked).keys(length)
    return kernel_flops(q, (*k[:2], keys, k[3]), v)


def attention_backward_flops(
    _gradient: Sizes, q: Sizes, k: Sizes, v: Sizes, _out: Any, _lse: Any, *reach: Any, **_more: Any
) -> int:
    """Backward of `executor::attention`."""
    return 2 * attention_flops(q, k, v, None, *reach)


_aten, _own = torch.ops.aten, torch.ops.executor
FORMULAS: dict[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: kernel_flops,  # noqa: SLF001 (no public name)
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: kernel_backward_flops,  # noqa: SLF001
    _own.attention: attention_flops,
    _own.attention_backward: attention_backward_flops,
}


def counter() -> FlopCounterMode:
    """torch's counter that knows the CPU's attention too."""
    return FlopCounterMode(display=False, custom_mapping=FORMULAS)


def counted(run: Callable[[], Tensor]) -> Counted:
    """FLOP of `run()` and of the backward pass from what it returns."""
    with counter() as ahead:
        out = run()
    with counter() as behind:
        torch.autograd.backward(out, torch.empty_like(out))
    return Counted(ahead.get_total_flops(), behind.get_total_flops())


def layer_flops(layer: Layer, seq_len: int, batch: int = 1) -> Counted:
    """FLOP of the twin of one layer, prediction module or head, or of what images pass, on meta tensors: no memory."""
    spec = Spec(layer.parts)
    with torch.device("meta"):
        positions = torch.arange(seq_len)
        if layer.takes:
            image = torch.empty(batch, *layer.takes, requires_grad=True)
            module = _image_twin(layer)
            return counted(lambda: module(image, 0) if layer.name == "head" else module(image, positions))
        if "output" in spec.names:
            head, x = head_twin(layer), _states(batch, seq_len, _entered(spec))
            return counted(lambda: head(x))
        block, x = Block(spec, Routing()), _states(batch, seq_len, spec.linear("attention_out").outputs)
        if "mtp_projection" in spec.names:
            module = Prediction(spec, block)
            return counted(lambda: torch.cat(module(x, torch.empty_like(x).requires_grad_(), positions)))
        return counted(lambda: block(x, positions, _shared(spec, batch, seq_len)))


def expected_flops(layer: Layer, seq_len: int) -> Counted:
    """What `layer_flops` must give for one sequence: the planner's count, and the stated extra of some kernels.

    A sliding window that divides the sequence is computed in blocks that see two windows; one that doesn't, over the
    whole sequence. Linear attention adds the products inside its chunks, but reads no state in the first and writes
    none in the last (`seq_len` a multiple of the chunk), and runs forward once more for its backward pass. All else is
    the planner's count to the last FLOP: forward, and twice that backward.
    """
    cores = [part for part in layer.parts if isinstance(part, Core)]
    planned = seq_len * round(layer.linear_flops() + layer.attention_flops(seq_len, causal=False))
    planned += layer.sequence_flops()
    forward = planned + sum(_extra(core, seq_len) for core in cores)
    repeated = sum(
        seq_len * round(core_flops(core, seq_len, causal=False)) + _extra(core, seq_len)
        for core in cores
        if core.linear
    )
    return Counted(forward, 2 * forward + repeated)


def _extra(core: Core, seq_len: int) -> int:
    """FLOP of one sequence that the twin's core spends beyond the planner's."""
    once = core_flops(core, seq_len, causal=False)
    if core.linear:
        chunk = min(CHUNK, seq_len)
        return round(2.0 * core.heads * chunk * (core.qk_dim + core.v_dim) * seq_len - once * chunk)
    if core.window is None or core.window >= seq_len:
        return 0
    return round(once * (Reach(core.window, core.chunked).keys(seq_len) / core.window - 1.0) * seq_len)


def _image_twin(layer: Layer) -> nn.Module:
    """The twin of a layer that takes images."""
    if layer.name == "head":
        return head_twin(layer)
    return embedding_twin(layer) if layer.name == "embedding" else layer_twin(layer, Routing())


def _entered(spec: Spec) -> int:
    """Channels that a head takes."""
    first = next(name for name in ("transform", "pooler", "output") if name in spec.names)
    return spec.linear(first).inputs


def _states(batch: int, seq_len: int, hidden: int) -> Tensor:
    """Hidden states on the residual stream."""
    return torch.empty(batch, seq_len, hidden, requires_grad=True)


def _shared(spec: Spec, batch: int, seq_len: int) -> tuple[Tensor, Tensor] | None:
    """Keys and values for a layer that has none of its own."""
    core = spec.core()
    if "qkv" not in spec.names or spec.linear("qkv").outputs > core.heads * core.qk_dim:
        return None
    shape = (batch, seq_len, core.kv_heads, core.qk_dim)
    return torch.empty(shape, requires_grad=True), torch.empty(shape, requires_grad=True)
