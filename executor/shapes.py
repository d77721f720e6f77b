"""The hyper-parameters of a model, read back off its parts: the inverse of `planner.shape.layer`.

A model keeps parts, no widths by name. What is read here is built again and compared, so a kind of layer that this
file doesn't know is refused and never shrunk wrongly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.errors import Fault, InputError
from planner.layers.base import Core, Cut, Linear, Part, Pointwise, Table, Vector
from planner.model import Layer, Model
from planner.shape import NORM_PLACES, Shape, layer, resolved

NORM_OF_VECTORS = {0: "bare", 1: "rms", 2: "layer"}
PLACES = {sum(places, ()): name for name, places in NORM_PLACES.items()}
NORMS = frozenset(name for places in PLACES for name in places)


@dataclass(frozen=True)
class Shapes:
    """`whole` has what belongs to no layer (embedding, head, MTP); `kinds` one shape per kind of layer."""

    whole: Shape
    kinds: tuple[Shape, ...]


def shapes(model: Model) -> Shapes:
    """The shapes that build `model`; InputError when a kind of layer can't be read."""
    if model.predicts != "tokens":
        what = {"masked": "masked tokens", "classes": "classes"}[model.predicts]
        expected = (
            f"predicts {what}; a proxy predicts the next token of a text, a recipe (`plan train`) trains the rest"
        )
        raise InputError(Fault(model.name, expected))
    kinds = tuple(_kind(kind, model) for kind in model.kinds)
    before, behind = _named(model.embedding), _named(model.head)
    positions = before.get("positions")
    whole = Shape(
        **_common(model),
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.kv_heads,
        experts=model.experts,
        topk=model.topk,
        norm=_norm_kind("final_norm", behind, model),
        tied=model.tied,
        positions=positions.rows if isinstance(positions, Table) else 0,
        embedding_norm="embedding_norm" in before,
        head_bias=_linear(behind, "output").bias,
        mtp_layers=model.mtp_layers,
        provenance=model.provenance,
    )
    return Shapes(whole, kinds)


def _kind(kind: Layer, model: Model) -> Shape:
    parts = _named(kind)
    fault = InputError(Fault(f"{model.name}: layer kind {kind.name}", "has parts that the proxy can't shrink"))
    try:
        found = Shape(**_common(model), layers=1, **_norms(kind, model), **_attention(parts, model), **_block(parts))
    except (KeyError, TypeError):
        raise fault from None
    if layer(resolved(found), found.reach(0), experts=found.experts > 0, name=kind.name) != kind:
        raise fault
    return found


def _common(model: Model) -> dict[str, Any]:
    return {"name": model.name, "family": model.family, "hidden": model.hidden, "vocab": model.vocab}


def _named(kind: Layer) -> dict[str, Part]:
    return {part.name: part for part in kind.parts}


def _linear(parts: dict[str, Part], name: str) -> Linear:
    part = parts[name]
    if not isinstance(part, Linear):
        raise TypeError(name)
    return part


def _norms(kind: Layer, model: Model) -> dict[str, Any]:
    names = tuple(part.name for part in kind.parts if isinstance(part, Pointwise) and part.name in NORMS)
    return {"norm_places": PLACES[names], "norm": _norm_kind(names[0], _named(kind), model)}


def _norm_kind(name: str, parts: dict[str, Part], model: Model) -> str:
    gain = parts.get(f"{name}_gain")
    return NORM_OF_VECTORS[gain.size // model.hidden if isinstance(gain, Vector) else 0]


def _attention(parts: dict[str, Part], model: Model) -> dict[str, Any]:
    core = parts["core"]
    if not isinstance(core, Core):
        raise TypeError(core.name)
    if core.linear:
        return {"heads": core.heads, "kv_heads": model.kv_heads, "head_dim": core.qk_dim, "reaches": ("linear",)}
    if "kv_up" in parts:
        return _latent(parts, core)
    projection, gain = _linear(parts, "qkv"), parts.get("qk_gain")
    own_kv = projection.outputs > core.heads * core.qk_dim
    reach = "window" if core.window else "full" if own_kv else "shared_kv"
    full_gain = isinstance(gain, Vector) and gain.cut is Cut.COLUMN
    return {
        "heads": core.heads,
        "kv_heads": core.kv_heads,
        "head_dim": core.qk_dim,
        "reaches": (reach,),
        "window": core.window or 0,
        "chunked": core.chunked,
        "qkv_bias": projection.bias,
        "out_bias": _linear(parts, "attention_out").bias,
        "qk_norm": "none" if gain is None else "full" if full_gain else "head",
        "sinks": "sinks" in parts,
    }


def _latent(parts: dict[str, Part], core: Core) -> dict[str, Any]:
    down, up = _linear(parts, "kv_down"), _linear(parts, "kv_up")
    rope = down.outputs - up.inputs
    return {
        "attention": "mla",
        "heads": core.heads,
        "q_rank": _linear(parts, "q_up").inputs if "q_up" in parts else 0,
        "kv_rank": up.inputs,
        "nope_dim": core.qk_dim - rope,
        "rope_dim": rope,
        "v_dim": core.v_dim,
        "qkv_bias": down.bias,
    }


def _block(parts: dict[str, Part]) -> dict[str, Any]:
    if "router" not in parts:
        up, down = _linear(parts, "up"), _linear(parts, "down")
        return {"ffn": down.inputs, "gated": up.outputs > down.inputs, "ffn_bias": up.bias}
    router, up, down = (_linear(parts, name) for name in ("router", "experts_up", "experts_down"))
    shared = _linear(parts, "shared_down") if "shared_down" in parts else None
    return {
        "experts": up.copies,
        "topk": up.active,
        "moe_ffn": down.inputs,
        "moe_gated": up.outputs > down.inputs,
        "router_bias": router.bias,
        "router_correction": "router_correction" in parts,
        "expert_bias": up.bias,
        "shared_ffn": shared.inputs if shared else 0,
        "shared_gate": "shared_gate" in parts,
        "ffn_bias": shared is not None and shared.bias,
    }
