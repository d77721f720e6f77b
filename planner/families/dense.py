"""Dense families with RMS norms and a gated feed-forward block: Llama and the many that differ in a switch or two.

Facts: the configuration classes and modules of transformers 5.23.0, one `model_type` each.
"""

from __future__ import annotations

from planner.families.reader import Family, Reader, attention_bias, block, reaches, sliding
from planner.shape import Shape


def _llama(c: Reader) -> Shape:
    c.ignore("pretraining_tp")
    return Shape(
        family="llama",
        **block(c),
        **attention_bias(c),
        ffn_bias=c.flag("mlp_bias"),
    )


def _mistral(c: Reader) -> Shape:
    return Shape(family="mistral", **block(c), **sliding(c, window=0 if "sliding_window" in c.config else 4096))


def _phi3(c: Reader) -> Shape:
    return Shape(family="phi3", **block(c), **sliding(c))


def _qwen(c: Reader) -> Shape:
    """Qwen2 has biases on q, k, v; Qwen3 has norms on q and k, a head of 128 and biases by switch."""
    third = c.config.get("model_type") == "qwen3"
    fields = block(c, head_dim=c.count("head_dim", default=128)) if third else block(c)
    start = c.count("max_window_layers", default=28, least=0)
    windowed = c.flag("use_sliding_window") and c.config.get("sliding_window", 4096) is not None
    cycle = ["window" if windowed and i >= start else "full" for i in range(fields["layers"])]
    return Shape(
        family="qwen3" if third else "qwen2",
        **fields,
        **(attention_bias(c) if third else {"qkv_bias": True}),
        **reaches(c, fields["layers"], cycle, 4096),
        qk_norm="head" if third else "none",
    )


def _smollm3(c: Reader) -> Shape:
    c.ignore("no_rope_layers", "no_rope_layer_interval", "pretraining_tp")
    c.require(use_sliding_window=False)
    fields = block(c, tied=c.flag("tie_word_embeddings", default=True))
    return Shape(
        family="smollm3",
        **fields,
        **attention_bias(c),
        **reaches(c, fields["layers"], ["full"]),
        ffn_bias=c.flag("mlp_bias"),
    )


def _seed_oss(c: Reader) -> Shape:
    return Shape(
        family="seed_oss",
        **block(c),
        qkv_bias=c.flag("attention_bias", default=True),
        out_bias=c.flag("attention_out_bias"),
        ffn_bias=c.flag("mlp_bias"),
    )


def _hunyuan(c: Reader) -> Shape:
    c.require(use_cla=False)
    c.require(use_qk_norm=True)
    return Shape(family="hunyuan_v1_dense", **block(c), **attention_bias(c), qk_norm="head")


def _ernie(c: Reader) -> Shape:
    bias = c.flag("use_bias")
    fields = block(c, head_dim=c.count("head_dim", default=128), tied=c.flag("tie_word_embeddings", default=True))
    return Shape(family="ernie4_5", **fields, qkv_bias=bias, out_bias=bias, ffn_bias=bias)


def _olmo(c: Reader) -> Shape:
    """The first OLMo: layer norms without learned vectors."""
    c.ignore("pretraining_tp")
    return Shape(family="olmo", **block(c), **attention_bias(c), norm="bare")


def _olmo2(c: Reader) -> Shape:
    """OLMo 2 and 3: norms behind the blocks, norms over all of q and k; OLMo 3 has a window on 3 of 4 layers."""
    third = c.config.get("model_type") == "olmo3"
    fields = block(c)
    cycle = ["window", "window", "window", "full"] if third else ["full"]
    return Shape(
        family="olmo2",
        **fields,
        **attention_bias(c),
        **reaches(c, fields["layers"], cycle, 4096),
        norm_places="post",
        qk_norm="full",
    )


def _glm(c: Reader) -> Shape:
    """GLM-4: biases on q, k, v alone; the 0414 release (glm4) adds norms behind the blocks."""
    later = c.config.get("model_type") == "glm4"
    fields = block(c, head_dim=c.count("head_dim", default=128))
    return Shape(
        family="glm",
        **fields,
        **attention_bias(c, default=True, output=False),
        norm_places="sandwich" if later else "pre",
    )


FAMILIES = (
    Family("llama", ("llama", "granite"), _llama),
    Family("mistral", ("mistral",), _mistral),
    Family("phi3", ("phi3",), _phi3),
    Family("qwen", ("qwen2", "qwen3"), _qwen),
    Family("smollm3", ("smollm3",), _smollm3),
    Family("seed_oss", ("seed_oss",), _seed_oss),
    Family("hunyuan_v1_dense", ("hunyuan_v1_dense",), _hunyuan),
    Family("ernie4_5", ("ernie4_5",), _ernie),
    Family("olmo", ("olmo",), _olmo),
    Family("olmo2", ("olmo2", "olmo3"), _olmo2),
    Family("glm", ("glm", "glm4"), _glm),
)
