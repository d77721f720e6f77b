"""Attention as one operator that keeps q, k, v, its output and one number a row, for any reach, sinks and widths.

On CPUs it runs torch's flash kernel (widths padded to be equal), elsewhere plain products. Plain causal attention of
equal widths needs none of this: `scaled_dot_product_attention` is one kernel already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_aten = torch.ops.aten


@dataclass(frozen=True)
class Reach:
    """What a query sees: the keys at its position or before, of the last `window` (0: all) tokens or of its chunk."""

    window: int = 0
    chunked: bool = False

    def mask(self, positions: Tensor, kv_positions: Tensor) -> Tensor:
        """[…, s, t], true where a query at `positions` […, s] sees a key at `kv_positions` […, t]."""
        query, key = positions.unsqueeze(-1), kv_positions.unsqueeze(-2)
        if not self.window:
            return query >= key
        if self.chunked:
            return (query >= key) & (query // self.window == key // self.window)
        return (query >= key) & (query - key < self.window)

    def step(self, length: int) -> int:
        """Queries in a block: a window where it divides the sequence, so that blocks out of reach cost nothing."""
        return self.window if 0 < self.window < length and length % self.window == 0 else length

    def keys(self, length: int) -> int:
        """Keys that a block of `step(length)` queries is multiplied with."""
        step = self.step(length)
        return step if self.chunked or step == length else 2 * step


@dataclass(frozen=True)
class _Blocks:
    """Cuts a sequence into blocks that become rows of the batch, and joins what was computed of them."""

    reach: Reach
    length: int

    @property
    def count(self) -> int:
        """Blocks of a sequence."""
        return self.length // self.reach.step(self.length)

    @property
    def looks_back(self) -> bool:
        """Whether a block sees the one before it."""
        return self.reach.keys(self.length) > self.reach.step(self.length)

    def queries(self, x: Tensor) -> Tensor:
        """[b, heads, s, …] -> [b · blocks, heads, step, …]."""
        blocks: Tensor = x.unflatten(2, (self.count, -1))
        return blocks.transpose(1, 2).flatten(0, 1)

    def keys(self, x: Tensor) -> Tensor:
        """[b, heads, s, d] -> [b · blocks, heads, step (twice where it looks back), d]; 0 before the sequence."""
        own = self.queries(x)
        if not self.looks_back:
            return own
        before = functional.pad(x, (0, 0, self.length // self.count, 0))[:, :, : self.length]
        return torch.cat((self.queries(before), own), dim=2)

    def join(self, x: Tensor) -> Tensor:
        """The inverse of `queries`."""
        blocks: Tensor = x.unflatten(0, (-1, self.count))
        return blocks.transpose(1, 2).flatten(2, 3)

    def add(self, x: Tensor) -> Tensor:
        """The transpose of `keys`: what both blocks that saw a key gave it."""
        if not self.looks_back:
            return self.join(x)
        before, own = (self.join(half) for half in x.chunk(2, dim=2))
        step = self.length // self.count
        return own + functional.pad(before[:, :, step:], (0, 0, 0, step))

    def mask(self, x: Tensor) -> Tensor:
        """[blocks · b, 1, step, keys] for a batch like `x`, of tokens in order from 0."""
        at = torch.arange(self.length, device=x.device).view(self.count, -1)
        kv_at = torch.cat((at - at.size(1), at), dim=1) if self.looks_back else at
        seen = (self.reach.mask(at, kv_at) & (kv_at >= 0).unsqueeze(-2)).unsqueeze(1)
        return seen.repeat(x.size(0), 1, 1, 1)


@torch.library.custom_op("executor::attention", mutates_args=())
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    positions: Tensor,
    kv_positions: Tensor | None,
    window: int,
    chunked: bool,  # noqa: FBT001 (operators take plain arguments)
) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / sqrt(d)) v of q [b, heads, s, d], k [b, groups, t, d], v [b, groups, t, dv].

    `sinks` [heads]: one more logit a head, without a value. `positions` [s], `kv_positions` [t] decide what a query
    sees (`Reach`); without the latter the tokens stand in order. Gives the output [b, heads, s, dv] and the log-sum-exp
    of its rows [b, heads, s] in fp32, sinks included.
    """
    blocks, mask = _arranged(q, positions, kv_positions, Reach(window, chunked))
    out, lse = attend(blocks.queries(q), blocks.keys(k), blocks.keys(v), mask)
    out, lse = blocks.join(out), blocks.join(lse)
    if sinks is not None:
        total = torch.logaddexp(lse, sinks.float()[:, None])
        out, lse = out * (lse - total).exp().unsqueeze(-1).to(out.dtype), total
    return _heads_last(out), lse.contiguous()


@attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, positions: Tensor, *_rest: Any, **_more: Any
) -> tuple[Tensor, Tensor]:
    return _heads_last(q.new_empty((*q.shape[:-1], v.size(-1)))), q.new_empty(q.shape[:-1], dtype=torch.float32)


@torch.library.custom_op("executor::attention_backward", mutates_args=())
def attention_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    positions: Tensor,
    kv_positions: Tensor | None,
    window: int,
    chunked: bool,  # noqa: FBT001 (as above)
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v. With the sinks in `lse` and `out` the kernel's formulas hold as they are."""
    blocks, mask = _arranged(q, positions, kv_positions, Reach(window, chunked))
    rows, gradient, out, lse = (blocks.queries(x) for x in (q, gradient, out, lse))
    dq, dk, dv = differentiate(rows, blocks.keys(k), blocks.keys(v), gradient, out, lse, mask)
    return blocks.join(dq).contiguous(), blocks.add(dk).contiguous(), blocks.add(dv).contiguous()


@attention_backward.register_fake
def _(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *_rest: Any, **_more: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, sinks, positions, kv_positions, *ctx.reach = inputs
    ctx.save_for_backward(q, k, v, sinks, positions, kv_positions, *output)


def _backward(ctx: Any, gradient: Tensor, _lse: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, sinks, positions, kv_positions, out, lse = ctx.saved_tensors
    found = attention_backward(gradient, q, k, v, out, lse, positions, kv_positions, *ctx.reach)
    of_sinks = None
    if sinks is not None:
        share = (sinks.float()[:, None] - lse).exp()
        of_sinks = -(share * (gradient.float() * out).sum(-1)).sum((0, 2)).to(sinks.dtype)
    return *found, of_sinks, None, None, None, None


attention.register_autograd(_backward, setup_context=_remember)


def _heads_last(x: Tensor) -> Tensor:
    """[b, heads, s, d] laid out as [b, s, heads, d], so that the output projection reads it without a copy."""
    return x.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)


def _arranged(q: Tensor, positions: Tensor, kv_positions: Tensor | None, reach: Reach) -> tuple[_Blocks, Tensor | None]:
    """How the sequence is cut, and the mask; None where the kernel's own causal one will do."""
    if kv_positions is not None:
        return _Blocks(Reach(), q.size(2)), reach.mask(positions, kv_positions)
    blocks = _Blocks(reach, q.size(2))
    plain = not reach.window or reach.window >= q.size(2) or (reach.chunked and blocks.count > 1)
    return blocks, None if plain else blocks.mask(q)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output and fp32 log-sum-exp; `mask` true where seen, None: causal."""
    scale = q.size(-1) ** -0.5
    if q.device.type == "cpu":
        padded, shift = _alike(q, k, v), _added(mask, q)
        kernel = _aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 (no public name)
        out, lse = kernel(*padded, 0.0, mask is None, attn_mask=shift, scale=scale)
        return out[..., : v.size(-1)], lse
    return multiply(q, k, v, mask)


def differentiate(
    q: Tensor, k: Tensor, v: Tensor, gradient: Tensor, out: Tensor, lse: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, given the output and the log-sum-exp over all that the softmax ran over."""
    scale = q.size(-1) ** -0.5
    if q.device.type == "cpu":
        padded, shift = _alike(q, k, v), _added(mask, q)
        gradient, out = _alike(gradient, out, padded[0])[:2]
        kernel = _aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001 (no public name)
        rest = {"attn_mask": shift, "scale": scale}
        dq, dk, dv = kernel(gradient, *padded, out, lse.contiguous(), 0.0, mask is None, **rest)
        return dq[..., : q.size(-1)], dk[..., : k.size(-1)], dv[..., : v.size(-1)]
    return differentiate_products(q, k, v, gradient, out, lse, mask)


def multiply(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """`attend` by plain products."""
    scores, _, v = _scores(q, k, v, mask)
    lse = scores.logsumexp(-1)
    return (scores - lse.unsqueeze(-1)).exp().to(v.dtype) @ v, lse


def differentiate_products(
    q: Tensor, k: Tensor, v: Tensor, gradient: Tensor, out: Tensor, lse: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`differentiate` by plain products."""
    scores, keys, values = _scores(q, k, v, mask)
    weights = (scores - lse.unsqueeze(-1)).exp()
    of_scores = weights * (gradient @ values.mT - (gradient * out).sum(-1, keepdim=True)) * q.size(-1) ** -0.5
    of_scores, weights = of_scores.to(q.dtype), weights.to(q.dtype)
    groups = (k.size(1), -1)
    dk, dv = ((each.mT @ x).unflatten(1, groups).sum(2) for each, x in ((of_scores, q), (weights, gradient)))
    return of_scores @ keys, dk, dv


def _scores(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Masked scores in fp32, and keys and values repeated for each query head."""
    k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    if mask is None:
        mask = torch.ones(q.size(2), k.size(2), dtype=torch.bool, device=q.device).tril()
    return (q @ k.mT * q.size(-1) ** -0.5).float().masked_fill(~mask, -torch.inf), k, v


def _alike(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three padded to the largest width."""
    width = max(x.size(-1) for x in (q, k, v))
    q, k, v = (functional.pad(x, (0, width - x.size(-1))) for x in (q, k, v))
    return q, k, v


def _added(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """The mask as what the kernel adds to the scores."""
    return None if mask is None else like.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf)
