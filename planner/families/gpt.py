"""Families with layer norms and mostly ungated feed-forward blocks: GPT-2 and its heirs.

Facts: the configuration classes and modules of transformers 5.23.0, one `model_type` each.
"""

from __future__ import annotations

from typing import Any

from planner.families.reader import Family, Reader, attention_bias, block, reaches, sliding
from planner.shape import Shape


def _biases(*, on: bool = True) -> dict[str, Any]:
    return {"qkv_bias": on, "out_bias": on, "ffn_bias": on}


def _tied(c: Reader) -> bool:
    return c.flag("tie_word_embeddings", default=True)


def _gpt2(c: Reader) -> Shape:
    """GPT-2, and GPT-BigCode with one key-value head; a learned position table, all biases, 4 h by default."""
    c.ignore("n_ctx", "task_specific_params", "reorder_and_upcast_attn", "num_key_value_heads")
    c.require(add_cross_attention=False)
    one = c.config.get("model_type") == "gpt_bigcode" and c.flag("multi_query", default=True)
    hidden = c.count("n_embd", "hidden_size")
    fields = block(
        c, hidden=hidden, kv_heads=int(one), head_dim=0, ffn=c.count("n_inner", default=4 * hidden), tied=_tied(c)
    )
    positions = c.count("n_positions", "max_position_embeddings", default=1024)
    return Shape(family="gpt2", **fields, **_biases(), gated=False, norm="layer", positions=positions)


def _gpt_neox(c: Reader) -> Shape:
    c.ignore("use_parallel_residual")  # two norms either way
    bias = c.flag("attention_bias", default=True)
    fields = block(c, kv_heads=0, head_dim=0)
    return Shape(family="gpt_neox", **fields, qkv_bias=bias, out_bias=bias, ffn_bias=True, gated=False, norm="layer")


def _bloom(c: Reader) -> Shape:
    c.ignore("pretraining_tp", "offset_alibi", "skip_bias_add", "skip_bias_add_qkv", "masked_softmax_fusion")
    c.ignore("apply_residual_connection_post_layernorm", "seq_length", "bias_dropout_fusion")
    hidden = c.count("hidden_size", "n_embed")
    fields = block(c, hidden=hidden, kv_heads=0, head_dim=0, ffn=4 * hidden, tied=_tied(c))
    return Shape(family="bloom", **fields, **_biases(), gated=False, norm="layer", embedding_norm=True)


def _opt(c: Reader) -> Shape:
    """OPT: positions start at 2, so the table has two rows more than the longest sequence."""
    hidden = c.count("hidden_size")
    c.require(word_embed_proj_dim=hidden)
    c.require(do_layer_norm_before=True)
    c.require(_remove_final_layer_norm=False)
    c.require(layer_norm_elementwise_affine=True)
    fields = block(c, hidden=hidden, kv_heads=0, head_dim=0, ffn=c.count("ffn_dim"), tied=_tied(c))
    bias = c.flag("enable_bias", default=True)
    positions = c.count("max_position_embeddings") + 2
    return Shape(family="opt", **fields, **_biases(on=bias), gated=False, norm="layer", positions=positions)


def _mpt(c: Reader) -> Shape:
    c.ignore("embedding_fraction", "norm_type", "learned_pos_emb", "init_device", "init_config")
    c.require(no_bias=True)
    c.require(expansion_ratio=4)
    inner = c.part("attn_config")
    inner.ignore("attn_impl", "attn_pdrop", "attn_type", "attn_uses_sequence_id", "alibi_bias_max")
    inner.require(qk_ln=False)
    inner.require(kv_n_heads=None)
    inner.refuse_unknown()
    hidden = c.count("d_model")
    fields = block(c, hidden=hidden, kv_heads=0, head_dim=0, ffn=4 * hidden, tied=_tied(c))
    return Shape(family="mpt", **fields, gated=False, norm="layer_unbiased")


def _falcon(c: Reader) -> Shape:
    """Falcon: the first design has one key-value head and, in parallel layers, one norm; the second groups and two."""
    second = c.flag("new_decoder_architecture")
    parallel = c.flag("parallel_attn", default=True)
    one = c.flag("multi_query", default=True) and not second
    given = c.count("num_kv_heads", "n_head_kv", default=0)
    norms = c.count("num_ln_in_parallel_attn", default=2 if second else 1)
    hidden = c.count("hidden_size", "n_embed")
    fields = block(
        c,
        hidden=hidden,
        kv_heads=1 if one else given * second,
        head_dim=0,
        ffn=c.count("ffn_hidden_size", default=4 * hidden),
        tied=_tied(c),
    )
    shared = (parallel or second) and norms == 1
    places = "parallel" if shared else "pre"
    return Shape(family="falcon", **fields, **_biases(on=c.flag("bias")), gated=False, norm="layer", norm_places=places)


def _starcoder2(c: Reader) -> Shape:
    c.ignore("mlp_type", "norm_type")
    fields = block(c, head_dim=0, tied=_tied(c))
    bias = c.flag("use_bias", default=True)
    return Shape(family="starcoder2", **fields, **_biases(on=bias), **sliding(c), gated=False, norm="layer")


def _nemotron(c: Reader) -> Shape:
    """Nemotron: squared ReLU without gate; the norm's gain is stored minus one, same count."""
    return Shape(
        family="nemotron",
        **block(c),
        **attention_bias(c),
        ffn_bias=c.flag("mlp_bias"),
        gated=False,
        norm="layer",
    )


def _stablelm(c: Reader) -> Shape:
    c.require(qk_layernorm=False)
    places = "parallel" if c.flag("use_parallel_residual") else "pre"
    return Shape(
        family="stablelm",
        **block(c, head_dim=0),
        qkv_bias=c.flag("use_qkv_bias"),
        norm="layer",
        norm_places=places,
    )


def _cohere(c: Reader) -> Shape:
    """Command R: one norm without bias before parallel blocks; the second generation has windows on 3 of 4 layers."""
    second = c.config.get("model_type") == "cohere2"
    c.ignore("logit_scale", "layer_switch", "position_embedding_type", "use_embedding_sharing", "use_gated_activation")
    c.ignore("order_of_interleaved_layers", "rotary_pct", "cache_implementation")
    fields = block(c, tied=_tied(c))
    normed = c.flag("use_qk_norm")
    cycle = ["full"]
    if second:
        local = c.count("sliding_window_pattern", "_sliding_window_pattern", default=4) - 1
        cycle = ["window"] * min(local, fields["layers"]) + ["full"]
    return Shape(
        family="cohere",
        **fields,
        **attention_bias(c),
        **reaches(c, fields["layers"], cycle, 4096),
        qk_norm="full" if normed else "none",
        norm="layer_unbiased",
        norm_places="parallel",
    )


FAMILIES = (
    Family("gpt2", ("gpt2", "gpt_bigcode"), _gpt2),
    Family("gpt_neox", ("gpt_neox",), _gpt_neox),
    Family("bloom", ("bloom",), _bloom),
    Family("opt", ("opt",), _opt),
    Family("mpt", ("mpt",), _mpt),
    Family("falcon", ("falcon",), _falcon),
    Family("starcoder2", ("starcoder2",), _starcoder2),
    Family("nemotron", ("nemotron",), _nemotron),
    Family("stablelm", ("stablelm",), _stablelm),
    Family("cohere", ("cohere", "cohere2"), _cohere),
)
