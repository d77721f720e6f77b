"""Mixtures with grouped-query attention: Mixtral, Qwen, OLMoE, gpt-oss and others.

Facts: the configuration classes and modules of transformers 5.23.0, one `model_type` each.
"""

from __future__ import annotations

from typing import Any

from planner.families.reader import (
    Family,
    Reader,
    attention_bias,
    block,
    listed_experts,
    mixture,
    reaches,
    sliding,
)
from planner.shape import Shape

LOCAL = ("num_local_experts", "num_experts")
TOPK = ("num_experts_per_tok",)


def _mixtral(c: Reader) -> Shape:
    c.require(mlp_only_layers=[])
    return Shape(family="mixtral", **block(c, ffn=0), **mixture(c, LOCAL, TOPK, "intermediate_size"), **sliding(c))


def _phimoe(c: Reader) -> Shape:
    """Phi-3.5-MoE: layer norms, biases around the attention and on the output matrix."""
    return Shape(
        family="phimoe",
        **block(c, ffn=0, head_dim=0),
        **mixture(c, LOCAL, TOPK, "intermediate_size"),
        **attention_bias(c),
        **sliding(c),
        norm="layer",
        head_bias=c.flag("lm_head_bias"),
    )


def _olmoe(c: Reader) -> Shape:
    return Shape(
        family="olmoe",
        **block(c, ffn=0, head_dim=0),
        **mixture(c, LOCAL, TOPK, "intermediate_size"),
        **attention_bias(c),
        qk_norm="full",
    )


def _granitemoe(c: Reader) -> Shape:
    fields = mixture(c, LOCAL, TOPK, "intermediate_size")
    return Shape(family="granitemoe", **block(c, ffn=0), **fields, **attention_bias(c))


def _qwen_moe(c: Reader) -> Shape:
    """Qwen2-MoE: biases on q, k, v and one gated shared expert; Qwen3-MoE: norms on q and k, no shared expert."""
    third = c.config.get("model_type") == "qwen3_moe"
    experts = mixture(c, LOCAL, TOPK, "moe_intermediate_size")
    fields = block(c)
    layers = fields["layers"]
    switch = c.flag("use_sliding_window")
    listed = listed_experts(c, layers) or {
        "moe_every": c.count("decoder_sparse_step", default=1),
        "dense_layers": tuple(c.items("mlp_only_layers", int) or ()),
    }
    if third:
        own: dict[str, Any] = {**attention_bias(c), **sliding(c, window=4096, switch=switch), "qk_norm": "head"}
        return Shape(family="qwen3_moe", **fields, **experts, **listed, **own)
    c.require(use_sliding_window=False)
    shared: dict[str, Any] = {
        "shared_experts": 1,
        "shared_ffn": c.count("shared_expert_intermediate_size"),
        "shared_gate": True,
    }
    own = {"qkv_bias": c.flag("qkv_bias", default=True), **reaches(c, layers, ["full"], 4096)}
    return Shape(family="qwen2_moe", **fields, **experts, **listed, **shared, **own)


def _gpt_oss(c: Reader) -> Shape:
    """gpt-oss: sinks, biases everywhere but the head, every other layer with a window of 128."""
    c.ignore("initial_context_length", "experts_per_token", "swiglu_limit", "swiglu_alpha")
    fields = block(c, ffn=0, head_dim=c.count("head_dim", default=64))
    return Shape(
        family="gpt_oss",
        **fields,
        **mixture(c, LOCAL, (*TOPK, "experts_per_token"), "intermediate_size"),
        **attention_bias(c, default=True),
        **reaches(c, fields["layers"], ["window", "full"], 128),
        sinks=True,
        router_bias=True,
        expert_bias=True,
    )


def _minimax(c: Reader) -> Shape:
    """MiniMax-Text-01 and M1: lightning attention, softmax where `layer_types` (or `attn_type_list` = 1) says."""
    c.ignore("block_size", "postnorm", "shared_moe_mode", "rotary_dim", "sliding_window")
    c.ignore(*(f"layernorm_{kind}_attention_{end}" for kind in ("full", "linear") for end in ("alpha", "beta")))
    c.ignore(*(f"{kind}_attn_{end}_factor" for kind in ("full", "linear") for end in ("alpha", "beta")))
    c.ignore("layernorm_mlp_alpha", "layernorm_mlp_beta", "mlp_alpha_factor", "mlp_beta_factor")
    c.require(shared_intermediate_size=0)
    fields = block(c, ffn=0)
    listed = c.items("attn_type_list", int, fields["layers"])
    default = ["full" if softmax else "linear" for softmax in listed] if listed else ["full", "linear"]
    found = reaches(c, fields["layers"], default)
    return Shape(family="minimax", **fields, **mixture(c, LOCAL, TOPK, "intermediate_size"), **found)


def _minimax_m2(c: Reader) -> Shape:
    """MiniMax-M2: softmax attention, norms over all of q and k; the released weights hold no prediction modules."""
    c.ignore("use_mtp", "num_mtp_modules", "mtp_transformer_layers", "use_routing_bias", "attn_window_size")
    c.require(shared_intermediate_size=0)
    c.require(use_qk_norm=True)
    c.require(qk_norm_type="per_layer")
    fields = block(c, ffn=0, head_dim=c.count("head_dim", default=128))
    listed = c.items("attn_type_list", int, fields["layers"])
    if listed and set(listed) != {1}:
        c.fault("attn_type_list", "only softmax attention (1) is understood", listed)
    return Shape(family="minimax_m2", **fields, **mixture(c, LOCAL, TOPK, "intermediate_size"), qk_norm="full")


def _dbrx(c: Reader) -> Shape:
    """DBRX: sizes in two nested objects, layer norms without bias."""
    attention, experts = c.part("attn_config"), c.part("ffn_config")
    attention.ignore("clip_qkv", "attn_pdrop")
    experts.ignore("moe_jitter_eps", "moe_loss_weight", "moe_normalize_expert_weights", "ffn_act_fn", "ffn_hidden_size")
    experts.ignore("uniform_expert_assignment", "hidden_size")
    c.ignore("num_key_value_heads")
    kv_heads = attention.count("kv_n_heads", default=1)
    fields = mixture(experts, ("moe_num_experts",), ("moe_top_k",), "ffn_hidden_size")
    attention.refuse_unknown()
    experts.refuse_unknown()
    return Shape(family="dbrx", **block(c, kv_heads=kv_heads, head_dim=0, ffn=0), **fields, norm="layer_unbiased")


def _hunyuan_moe(c: Reader) -> Shape:
    """Hunyuan A13B: norms on q and k, one shared expert as wide as a routed one."""
    c.require(use_cla=False)
    c.require(use_qk_norm=True)
    c.require(num_shared_expert=1)
    c.ignore("use_mixed_mlp_moe", "moe_drop_tokens", "moe_random_routing_dropped_token", "moe_layer_num_skipped")
    return Shape(
        family="hunyuan_v1_moe",
        **block(c, ffn=0),
        **mixture(c, ("num_experts",), ("moe_topk",), "intermediate_size"),
        **attention_bias(c),
        shared_experts=1,
        qk_norm="head",
    )


def _ernie_moe(c: Reader) -> Shape:
    """ERNIE 4.5: experts from a start to an end layer, a stored router correction, one switch for all biases."""
    fields = block(c, tied=c.flag("tie_word_embeddings", default=True))
    layers = fields["layers"]
    start = c.count("moe_layer_start_index", default=1, least=0)
    end = c.count("moe_layer_end_index", default=-1, least=-1)
    bias = c.flag("use_bias")
    last = layers - 1 if end == -1 else end
    return Shape(
        family="ernie4_5_moe",
        **fields,
        **mixture(c, ("moe_num_experts",), ("moe_k",), "moe_intermediate_size"),
        shared_experts=c.count("moe_num_shared_experts", default=2, least=0),
        first_dense=start,
        dense_layers=tuple(range(last + 1, layers)),
        moe_every=c.count("moe_layer_interval", default=1),
        router_correction=True,
        qkv_bias=bias,
        out_bias=bias,
        ffn_bias=bias,
        head_bias=bias,
    )


FAMILIES = (
    Family("mixtral", ("mixtral",), _mixtral),
    Family("phimoe", ("phimoe",), _phimoe),
    Family("olmoe", ("olmoe",), _olmoe),
    Family("granitemoe", ("granitemoe",), _granitemoe),
    Family("qwen_moe", ("qwen2_moe", "qwen3_moe"), _qwen_moe),
    Family("gpt_oss", ("gpt_oss",), _gpt_oss),
    Family("minimax", ("minimax", "minimax_text_01", "minimax_m1"), _minimax),
    Family("minimax_m2", ("minimax_m2",), _minimax_m2),
    Family("dbrx", ("dbrx",), _dbrx),
    Family("hunyuan_v1_moe", ("hunyuan_v1_moe",), _hunyuan_moe),
    Family("ernie4_5_moe", ("ernie4_5_moe",), _ernie_moe),
)
