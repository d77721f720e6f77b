"""DeepSeek-V2, V3 and the models built alike (Kimi K2, GLM-4.5, dots.llm1): a few dense layers, then many experts.

In a DeepSeek file `head_dim` and `num_key_value_heads` don't size the heads: MLA has its own widths.
Facts: the configuration classes and modules of transformers 5.23.0; MTP: DeepSeek-V3 (arXiv:2412.19437).
"""

from __future__ import annotations

from typing import Any

from planner.families.reader import Family, Reader, attention_bias, block, listed_experts, mixture, reaches
from planner.shape import Shape


def _experts(c: Reader, layers: int) -> dict[str, Any]:
    c.ignore("seq_aux", "ep_size", "pretraining_tp", "rope_interleave", "qk_head_dim")
    c.require(moe_layer_freq=1)
    keys = ("n_routed_experts", "num_local_experts", "num_experts")
    listed = listed_experts(c, layers)
    return {
        **mixture(c, keys, ("num_experts_per_tok",), "moe_intermediate_size"),
        "shared_experts": c.optional("n_shared_experts"),
        **({"first_dense": c.optional("first_k_dense_replace")} if listed is None else listed),
        "mtp_layers": c.count("num_nextn_predict_layers", "num_mtp_layers", default=0, least=0),
    }


def _deepseek(c: Reader) -> Shape:
    c.ignore("head_dim", "num_key_value_heads")
    fields = block(c, kv_heads=0, head_dim=0)
    return Shape(
        family="deepseek",
        **fields,
        **_experts(c, fields["layers"]),
        qkv_bias=c.flag("attention_bias"),
        ffn_bias=c.flag("mlp_bias"),
        attention="mla",
        q_rank=c.optional("q_lora_rank"),
        kv_rank=c.count("kv_lora_rank"),
        nope_dim=c.count("qk_nope_head_dim"),
        rope_dim=c.count("qk_rope_head_dim"),
        v_dim=c.count("v_head_dim"),
    )


def _glm4_moe(c: Reader) -> Shape:
    fields = block(c)
    return Shape(
        family="glm4_moe",
        **fields,
        **_experts(c, fields["layers"]),
        **attention_bias(c, output=False),
        qk_norm="head" if c.flag("use_qk_norm") else "none",
    )


def _dots(c: Reader) -> Shape:
    fields = block(c)
    return Shape(
        family="dots1",
        **fields,
        **_experts(c, fields["layers"]),
        **attention_bias(c),
        **reaches(c, fields["layers"], ["full"], 4096),
        qk_norm="head",
    )


FAMILIES = (
    Family("deepseek", ("deepseek_v3", "deepseek_v2", "kimi_k2"), _deepseek),
    Family("glm4_moe", ("glm4_moe",), _glm4_moe),
    Family("dots1", ("dots1",), _dots),
)
