"""Lightning (linear) attention of MiniMax-Text-01 (arXiv:2501.08313, section 2.2; Qin 2024, arXiv:2401.04658).

[q, k, v] = silu(x W_qkv), state S ← λ S + kᵀ v, o = q S, out = (norm(o) · sigmoid(x W_g)) W_o.
Parameters: 5 · hidden · heads · head_dim + heads · head_dim. FLOP per token forward: 2 · matrices + 4 · heads · d²,
whatever the sequence.
"""

from __future__ import annotations

from planner.layers.base import Core, Cut, Linear, Parts, Pointwise
from planner.layers.norm import norm


def linear_attention(hidden: int, heads: int, head_dim: int) -> Parts:
    """The lightning attention block between its norm and its residual addition, in order of execution."""
    width = heads * head_dim
    return (
        Linear("qkv", "attention", hidden, 3 * width, Cut.COLUMN, cheap_input=True),
        Pointwise("qkv_activation", 3 * width, forward=2, backward=3, saved=1, cut=Cut.COLUMN),
        Core("core", heads, heads, head_dim, head_dim, linear=True),
        *norm("core_norm", width, "rms", "attention", Cut.COLUMN),
        Linear("output_gate", "attention", hidden, width, Cut.COLUMN, saves=False),
        Pointwise("output_gating", width, forward=3, backward=5, saved=2, cut=Cut.COLUMN),
        Linear("attention_out", "attention", width, hidden, Cut.ROW, cheap_input=True),
    )
