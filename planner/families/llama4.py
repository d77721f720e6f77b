"""Llama 4 (text decoder): one shared and one routed expert a token, chunked attention but on every fourth layer.

`intermediate_size` is the width of the routed and the shared expert, `intermediate_size_mlp` that of dense layers.
Facts: the configuration class and modules of transformers 5.23.0.
"""

from __future__ import annotations

from typing import Any

from planner.families.reader import Family, Reader, attention_bias, block, mixture, reaches
from planner.shape import Shape


def _llama4(c: Reader) -> Shape:
    c.ignore("use_qk_norm", "for_llm_compressor")  # the norm of q and k has no learned vector
    fields = block(c, ffn=c.count("intermediate_size_mlp"), head_dim=c.count("head_dim", default=128))
    layers = fields["layers"]
    rotary = c.items("no_rope_layers", int) or None
    interval = c.count("no_rope_layer_interval", default=4)
    cycle = (
        ["window" if on else "full" for on in rotary] if rotary else ["window"] * min(interval - 1, layers) + ["full"]
    )
    chosen = c.items("moe_layers", int)
    step = c.count("interleave_moe_layer_step", default=1)
    placed: dict[str, Any] = {"moe_every": step}
    if chosen is not None:
        placed = {"dense_layers": tuple(i for i in range(layers) if i not in chosen)}
    return Shape(
        family="llama4",
        **fields,
        **mixture(c, ("num_local_experts",), ("num_experts_per_tok",), "intermediate_size"),
        **attention_bias(c),
        **reaches(c, layers, cycle, 8192, "attention_chunk_size"),
        **placed,
        chunked=True,
        shared_experts=1,
    )


FAMILIES = (Family("llama4", ("llama4_text", "llama4"), _llama4),)
