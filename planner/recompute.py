"""What selective recompute runs again, in the modules that frameworks name (Megatron-LM --recompute-modules).

`layernorm`: norms; `moe_act`, `mlp_act`: activations of experts and of dense blocks; `mla_up_proj`: queries, keys and
values of MLA from their latents; `core_attn`: the attention product; `mlp`, `shared_experts`: whole blocks; `moe`:
router, exchange and experts; `matmuls`: every second matrix multiply with all memory-bound work (torchtitan's op mode).
"""

from __future__ import annotations

from planner.layers.base import Core, Cut, Linear, Part, Pointwise
from planner.setting import Setting

MODULES = ("layernorm", "moe_act", "mlp_act", "mla_up_proj", "core_attn", "mlp", "shared_experts", "moe", "matmuls")
_OF_LABEL = {"dense_ffn": "mlp", "shared_experts": "shared_experts", "experts": "moe", "router": "moe"}
_OF_NAME = {
    "activation": ("mlp_act", "mlp"),
    "shared_activation": ("mlp_act", "shared_experts"),
    "experts_activation": ("moe_act", "moe"),
    "router_scores": ("moe",),
    "permute": ("moe",),
    "unpermute": ("moe",),
}


def repeated(part: Part, setting: Setting) -> float:
    """Share of the part's forward pass that runs again in the backward pass, in a layer that is recomputed."""
    if setting.choices.recompute != "selective":
        return float(setting.choices.recompute == "full")
    chosen, kept = setting.stack.recomputed, setting.stack.kept_outputs
    if kept:  # a checkpoint policy: all but these matrices
        return float(not (isinstance(part, Linear) and part.name in kept))
    if any(module in chosen for module in _modules(part, setting)):
        return 1.0
    if "matmuls" not in chosen:
        return 0.0
    return 0.5 if isinstance(part, Linear) else float(isinstance(part, Pointwise))


def exchanges(setting: Setting) -> bool:
    """Whether the exchange between experts runs again."""
    full = setting.choices.recompute == "full"
    return full or (setting.choices.recompute == "selective" and "moe" in setting.stack.recomputed)


def _modules(part: Part, setting: Setting) -> tuple[str, ...]:
    """The modules that hold a part; a fused attention product is never run again."""
    if isinstance(part, Core):
        return () if setting.stack.flash_attention else ("core_attn",)
    if isinstance(part, Linear):
        return (_OF_LABEL.get(part.label, ""), "mla_up_proj" if part.rebuilt else "")
    if isinstance(part, Pointwise):
        return _OF_NAME.get(part.name, ("layernorm",) if part.name.endswith("norm") else ())
    return ()


def dropped(part: Pointwise, modules: tuple[str, ...]) -> bool:
    """Whether what the part keeps lies inside a whole block of `modules`; a block's own input stays."""
    return any(block in modules for block in _OF_NAME.get(part.name, ()) if not block.endswith("_act"))


def dropped_input(part: Linear, modules: tuple[str, ...]) -> bool:
    """Whether a matrix's input is made again: by its norm or its activation, or inside a whole block."""
    block = _OF_LABEL.get(part.label, "")
    if part.cut is Cut.ROW and block:
        return block in modules or (part.cheap_input and ("moe_act" if part.expert else "mlp_act") in modules)
    if part.expert:
        return block in modules
    if part.rebuilt and part.name != "q":
        return "mla_up_proj" in modules
    return part.cheap_input and "layernorm" in modules
