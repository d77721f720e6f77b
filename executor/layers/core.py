"""The attention product: softmax over the keys in reach. Context parallelism puts its own way in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.layers.base import local
from executor.layers.flash import attention
from planner.layers import base as planner_base


class SoftmaxCore(nn.Module):
    """softmax(q kᵀ / sqrt(d)) v with grouped keys and values, causal or over the whole sequence.

    `window` [tokens] limits the reach, or with `chunked` is a block that no token looks out of; `sinks` [heads], one
    more logit a head that takes weight and gives nothing (arXiv:2309.17453; gpt-oss).
    """

    linear = False

    def __init__(self, part: planner_base.Core, *, sinks: bool = False) -> None:
        """The core of a part."""
        super().__init__()
        self.window, self.chunked, self.causal = part.window, part.chunked, part.causal
        self.sinks = nn.Parameter(torch.empty(part.heads)) if sinks else None

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Tensor,
        kv_positions: Tensor | None = None,
        there: Tensor | None = None,
    ) -> Tensor:
        """`q` [b, s, heads, d], `k` [b, t, groups, d], `v` [b, t, groups, dv] -> [b, s, heads, dv].

        `positions` [s] and `kv_positions` [t] say which token stands where; without the latter the keys are the
        queries' own, in order. `there` [b, t]: which keys may be seen; only without causality.
        """
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        if not self.causal:
            mask = None if there is None else there[:, None, None]
            return functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True).transpose(1, 2)
        window = self.window if self.window is not None and self.window < k.size(2) else 0
        whole = kv_positions is None and self.sinks is None and not window
        if whole and (q.size(-1) == v.size(-1) or q.device.type != "cpu"):
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            sinks = None if self.sinks is None else local(self.sinks)
            reach = self.window or 0 if kv_positions is not None else window
            out, _ = attention(q, k, v, sinks, positions, kv_positions, reach, self.chunked)
        return out.transpose(1, 2)
