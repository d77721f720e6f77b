"""Softmax attention with separate or grouped keys and values (Vaswani 2017; GQA: Ainslie 2023, arXiv:2305.13245).

q = x W_q (heads · head_dim), k, v = x W_k, x W_v (kv_heads · head_dim each), out = softmax(q kᵀ / sqrt(d)) v W_o.
Parameters: hidden · d · (2 · heads + 2 · kv_heads), and the vectors asked for. FLOP per token forward:
2 · parameters of the matrices + 4 · heads · d · reach. Kept for the backward pass: the norm output (input of q, k, v),
q, k, v (by the core) and the core's output (input of the output projection).
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.layers.base import Core, Cut, Linear, Parts, Pointwise, Vector
from planner.layers.norm import NORM_BACKWARD, NORM_FORWARD

ROTARY = 4  # split and copy, then rotate: two reads and two writes of q and k, in both directions


@dataclass(frozen=True)
class Heads:
    """Sizes and options of one attention block.

    `qk_norm`: "none", "head" (one gain of `head_dim` shared by all heads) or "full" (a gain for every channel).
    `sinks`: one learned logit a head. `window` [tokens], with `chunked` the block instead of the sliding reach.
    `own_kv`: False when keys and values come from an earlier layer (cross-layer attention, arXiv:2405.12981).
    `causal`: False when a token sees those behind it too (BERT, ViT); `rotary`: False when positions are not turned
    into q and k. `normed`: the input comes from a norm of this layer, which selective recompute runs again.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: str = "none"
    norm_vectors: int = 1
    sinks: bool = False
    window: int | None = None
    chunked: bool = False
    own_kv: bool = True
    causal: bool = True
    rotary: bool = True
    normed: bool = True


def attention(size: Heads) -> Parts:
    """The attention block between its norm and its residual addition, in order of execution."""
    kv_width = size.kv_heads * size.head_dim if size.own_kv else 0
    width = size.heads * size.head_dim
    projection = Linear(
        "qkv", "attention", size.hidden, width + 2 * kv_width, Cut.COLUMN, bias=size.qkv_bias, cheap_input=size.normed
    )
    turned = Pointwise("rotary", width + kv_width, ROTARY, ROTARY, cut=Cut.COLUMN)
    rotary = (turned,) if size.rotary else ()
    core = Core(
        "core",
        size.heads,
        size.kv_heads,
        size.head_dim,
        size.head_dim,
        window=size.window,
        causal=size.causal,
        chunked=size.chunked,
        own_kv=size.own_kv,
    )
    output = Linear("attention_out", "attention", width, size.hidden, Cut.ROW, bias=size.out_bias)
    sinks = (Vector("sinks", "attention", size.heads, Cut.COLUMN),) if size.sinks else ()
    return (projection, *_qk_norm(size, width, kv_width), *rotary, *sinks, core, output)


def _qk_norm(size: Heads, width: int, kv_width: int) -> Parts:
    """Norm of q and k before the product (Dehghani 2023, arXiv:2302.05442); keeps both inputs."""
    if size.qk_norm == "none":
        return ()
    work = Pointwise("qk_norm", width + kv_width, NORM_FORWARD, NORM_BACKWARD, saved=1, cut=Cut.COLUMN)
    if size.qk_norm == "full":
        return (Vector("qk_gain", "attention", size.norm_vectors * (width + kv_width), Cut.COLUMN), work)
    gains = 2 if size.own_kv else 1
    return (Vector("qk_gain", "attention", gains * size.norm_vectors * size.head_dim), work)
