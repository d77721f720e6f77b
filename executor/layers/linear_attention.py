"""Twin of planner.layers.linear_attention: lightning attention, a recurrence computed in chunks (arXiv:2401.04658)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.layers.attention import KeysValues
from executor.layers.base import Spec, matrix
from executor.layers.fused import fused
from executor.layers.norm import WideNorm
from executor.layers.rebuild import rebuilt
from planner.layers import base as planner_base

CHUNK = 64  # tokens a chunk; within one, q kᵀ is multiplied out


class LinearCore(nn.Module):
    """o_t = q_t S_t with S_t = λ S_{t-1} + k_tᵀ v_t, one decay λ a head: exp(-2^(-8 i / heads)), the rates of ALiBi.

    A chunk of C tokens costs 2 · C · (d + dv) FLOP per token and head beyond the recurrence's 4 · d · dv; the first
    reads no state and the last writes none. `first` is the first head of this rank.
    """

    causal, window, chunked, sinks, linear = True, None, False, None, True

    def __init__(self, part: planner_base.Core) -> None:
        """The core of a part; the rates are constants of the architecture, no parameters."""
        super().__init__()
        self.heads, self.first = part.heads, 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, kv_positions: Tensor | None = None) -> Tensor:
        """`q`, `k` [b, s, heads, d], `v` [b, s, heads, dv] -> [b, s, heads, dv]; positions as in SoftmaxCore."""
        if kv_positions is None:
            return fused(lambda q, k, v: _recurrence(q, k, v, self._rates(q)), q, k, v)
        return fused(lambda q, k, v: _distant(q, k, v, positions, kv_positions, self._rates(q)), q, k, v)

    def _rates(self, q: Tensor) -> Tensor:
        """[heads on this rank, 1, 1], fp32."""
        index = torch.arange(self.first, self.first + q.size(2), device=q.device, dtype=torch.float32)
        return torch.exp2(-8.0 * (index + 1.0) / self.heads)[:, None, None]


def _recurrence(q: Tensor, k: Tensor, v: Tensor, rates: Tensor) -> Tensor:
    """The recurrence over all tokens in order, chunk by chunk."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    chunks = list(zip(*(t.split(CHUNK, dim=2) for t in (q, k, v)), strict=True))
    state: Tensor | None = None
    pieces = []
    for index, (q_chunk, k_chunk, v_chunk) in enumerate(chunks):
        at = torch.arange(q_chunk.size(2), device=q.device)
        fade = torch.exp(-rates * (at + 1)[:, None]).to(q.dtype)  # of the state before the chunk
        within = _decayed(q_chunk, k_chunk, at, at, rates) @ v_chunk
        pieces.append(within if state is None else within + (q_chunk * fade) @ state)
        if index + 1 < len(chunks):
            left = torch.exp(-rates * (at.size(0) - 1 - at)[:, None]).to(q.dtype)  # of a key at the chunk's end
            added = (k_chunk * left).transpose(-1, -2) @ v_chunk
            state = added if state is None else state * fade[:, -1:] + added
    return torch.cat(pieces, dim=2).transpose(1, 2)


def _distant(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, kv_positions: Tensor, rates: Tensor) -> Tensor:
    """The same for queries and keys at any positions, by products of all with all."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    return (_decayed(q, k, positions, kv_positions, rates) @ v).transpose(1, 2)


def _decayed(q: Tensor, k: Tensor, positions: Tensor, kv_positions: Tensor, rates: Tensor) -> Tensor:
    """(q kᵀ) ∘ λ^distance for keys not behind the query, 0 for the others."""
    distance = positions[:, None] - kv_positions[None, :]
    decay = torch.exp(-rates * distance.clamp(min=0)) * (distance >= 0)
    return (q @ k.transpose(-1, -2)) * decay.to(q.dtype)


class LinearAttention(nn.Module):
    """silu(x W_q), silu(x W_k), silu(x W_v), the core, its norm, a gate from x, the output projection."""

    def __init__(self, spec: Spec) -> None:
        """The attention of a layer's parts."""
        super().__init__()
        qkv, core = spec.linear("qkv"), spec.core()
        width = core.heads * core.qk_dim
        self.head_dim = core.qk_dim
        self.q, self.k, self.v = (matrix(qkv, width) for _ in range(3))
        self.core = LinearCore(core)
        self.core_norm = WideNorm(width)
        self.gate = matrix(spec.linear("output_gate"))
        self.out = matrix(spec.linear("attention_out"))

    def forward(self, x: Tensor, positions: Tensor, shared: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """`x` [b, s, hidden] -> [b, s, hidden], and the keys and values."""
        q, k, v = (
            functional.silu(project(x)).unflatten(-1, (-1, self.head_dim)) for project in (self.q, self.k, self.v)
        )
        core = self.core_norm(self.core(q, k, v, positions).flatten(2))
        return self.out(rebuilt(torch.mul, core, self.gate(x).sigmoid())), (k, v)
