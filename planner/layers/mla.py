"""Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).

c_q = norm(x W_dq), q = c_q W_uq; [c_kv, k_rope] = x W_dkv; [k_nope, v] = norm(c_kv) W_ukv;
scores over nope + rope dimensions, values of v_dim, out = core W_o (heads · v_dim → hidden).
Parameters: h·r_q + r_q + r_q·a·(nope + rope) + h·(r_kv + rope) + r_kv + r_kv·a·(nope + v) + a·v·h; without query
compression (r_q = 0) the query is one matrix h · a·(nope + rope). Training multiplies keys and values out, so
the core has as many key heads as query heads; selective recompute rebuilds q, k and v from the latents.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.layers.attention import ROTARY
from planner.layers.base import Core, Cut, Linear, Parts, Pointwise
from planner.layers.norm import norm


@dataclass(frozen=True)
class Latent:
    """Sizes of one MLA block; `q_rank` 0: query uncompressed; `bias`: on both down-projections and the output."""

    hidden: int
    heads: int
    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    bias: bool = False


def mla(size: Latent) -> Parts:
    """The MLA block between its norm and its residual addition, in order of execution."""
    qk_dim = size.nope_dim + size.rope_dim
    down = Linear(
        "kv_down", "attention", size.hidden, size.kv_rank + size.rope_dim, Cut.NONE, bias=size.bias, saves=False
    )
    up = Linear(
        "kv_up",
        "attention",
        size.kv_rank,
        size.heads * (size.nope_dim + size.v_dim),
        Cut.COLUMN,
        cheap_input=True,
        rebuilt=True,
        enters=size.kv_rank + size.rope_dim,
    )
    rotary = Pointwise("rotary", 2 * size.heads * qk_dim, ROTARY, ROTARY, cut=Cut.COLUMN)
    core = Core("core", size.heads, size.heads, qk_dim, size.v_dim, rebuilt=True)
    output = Linear("attention_out", "attention", size.heads * size.v_dim, size.hidden, Cut.ROW, bias=size.bias)
    return (*_query(size, qk_dim), down, *norm("kv_norm", size.kv_rank, "rms", "attention"), up, rotary, core, output)


def _query(size: Latent, qk_dim: int) -> Parts:
    width = size.heads * qk_dim
    if size.q_rank == 0:
        return (Linear("q", "attention", size.hidden, width, Cut.COLUMN, cheap_input=True, rebuilt=True),)
    down = Linear("q_down", "attention", size.hidden, size.q_rank, Cut.NONE, bias=size.bias, cheap_input=True)
    up = Linear("q_up", "attention", size.q_rank, width, Cut.COLUMN, cheap_input=True, rebuilt=True)
    return (down, *norm("q_norm", size.q_rank, "rms", "attention"), up)
