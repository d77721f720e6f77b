"""Twin of planner.layers.attention: multi-head and grouped-query attention with its options."""

from __future__ import annotations

from torch import Tensor, nn

from executor.layers.base import Spec, matrix
from executor.layers.core import SoftmaxCore
from executor.layers.norm import WideNorm, plain
from executor.layers.rotary import angles, rotate

KeysValues = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """q, k, v projections, optional norms of q and k, rotation, core, output projection.

    Without `k` and `v` of its own the layer takes the keys and values of the layer before (arXiv:2405.12981).
    """

    def __init__(self, spec: Spec) -> None:
        """The attention of a layer's parts; q, k and v are matrices of their own, which tp cuts by heads."""
        super().__init__()
        qkv, core = spec.linear("qkv"), spec.core()
        self.head_dim, width = core.qk_dim, core.heads * core.qk_dim
        kv_width = (qkv.outputs - width) // 2
        self.q = matrix(qkv, width)
        self.k = matrix(qkv, kv_width) if kv_width else None
        self.v = matrix(qkv, kv_width) if kv_width else None
        self.q_norm = _head_norm(spec, core.heads, kv_width)
        self.k_norm = _head_norm(spec, core.kv_heads, kv_width) if kv_width else None
        self.core = SoftmaxCore(core, sinks="sinks" in spec.names)
        self.out = matrix(spec.linear("attention_out"))
        self.rotary = "rotary" in spec.work

    def forward(
        self, x: Tensor, positions: Tensor, shared: KeysValues | None = None, there: Tensor | None = None
    ) -> tuple[Tensor, KeysValues]:
        """`x` [b, s, hidden] -> [b, s, hidden], and the keys and values for a layer that shares them.

        `there` [b, whole s]: which tokens are no padding; None for all.
        """
        q = self._heads(self.q(x), self.q_norm)
        turn = angles(positions, self.head_dim, q.dtype) if self.rotary else None
        q = q if turn is None else rotate(q, turn)
        if self.k is not None and self.v is not None:
            k = self._heads(self.k(x), self.k_norm)
            shared = (k if turn is None else rotate(k, turn), self._heads(self.v(x), None))
        if shared is None:
            raise ValueError("a layer without keys and values needs those of the layer before")
        core = self.core(q, *shared, positions) if there is None else self.core(q, *shared, positions, there=there)
        return self.out(core.flatten(2)), shared

    def _heads(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """[b, s, width] -> [b, s, heads on this rank, head_dim], normed over the width or over each head."""
        if isinstance(norm, WideNorm):
            x = norm(x)
        heads: Tensor = x.unflatten(-1, (-1, self.head_dim))
        return heads if norm is None or isinstance(norm, WideNorm) else norm(heads)


def _head_norm(spec: Spec, heads: int, kv_width: int) -> nn.Module | None:
    """The norm of q (or k): none, one shared by all heads, or one over the whole width."""
    if "qk_norm" not in spec.names:
        return None
    width = spec.core().qk_dim
    whole, gains = spec.pointwise("qk_norm").width, spec.vectors("qk_gain", 1)
    if whole and gains % whole == 0 and gains:
        return WideNorm(heads * width, gains // whole)
    return plain(width, gains // ((2 if kv_width else 1) * width))
