"""Gemma 1 to 3 (text decoder): tied embeddings, wide heads; later ones norms around each block and local windows.

Published Gemma 3 files leave out what equals the configuration class, so its defaults stand here (transformers 5.23.0).
"""

from __future__ import annotations

from typing import Any

from planner.families.reader import Family, Reader, attention_bias, block, reaches
from planner.shape import Shape


def _fields(c: Reader, **known: Any) -> dict[str, Any]:
    c.ignore("query_pre_attn_scalar", "use_bidirectional_attention", "cache_implementation")
    head_dim = c.count("head_dim", default=256)
    return block(c, head_dim=head_dim, tied=c.flag("tie_word_embeddings", default=True), **known)


def _gemma(c: Reader) -> Shape:
    return Shape(family="gemma", **_fields(c), **attention_bias(c))


def _gemma2(c: Reader) -> Shape:
    fields = _fields(c)
    return Shape(
        family="gemma2",
        **fields,
        **attention_bias(c),
        **reaches(c, fields["layers"], ["window", "full"], 4096),
        norm_places="sandwich",
    )


def _gemma3(c: Reader) -> Shape:
    heads = c.count("num_attention_heads", default=8)
    kv_heads = c.count("num_key_value_heads", default=4)
    fields = _fields(c, vocab=c.count("vocab_size", default=262208), heads=heads, kv_heads=kv_heads)
    local = c.count("sliding_window_pattern", "_sliding_window_pattern", default=6) - 1
    return Shape(
        family="gemma3",
        **fields,
        **attention_bias(c),
        **reaches(c, fields["layers"], ["window"] * min(local, fields["layers"]) + ["full"], 4096),
        norm_places="sandwich",
        qk_norm="head",
    )


FAMILIES = (
    Family("gemma", ("gemma",), _gemma),
    Family("gemma2", ("gemma2",), _gemma2),
    Family("gemma3", ("gemma3_text", "gemma3"), _gemma3),
)
