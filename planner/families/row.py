"""The `model` of a published run, as a shape.

Runs print sizes, not switches. Models with gated blocks are taken to have RMS norms and no biases, the others layer
norms and biases, as their published code does; a silent `tied_embedding` is taken as untied. Both move the parameter
count of a large model by under a thousandth, an output matrix more but no more than the row's source leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwprofiles.faults import Fault, InputError
from planner.shape import Shape

ARCHITECTURES = ("dense", "moe")
REQUIRED = {"layers": "layers", "hidden": "hidden", "heads": "heads", "vocab": "vocab"}
LATENT = {
    "q_rank": "q_lora_rank",
    "kv_rank": "kv_lora_rank",
    "nope_dim": "qk_nope_head_dim",
    "rope_dim": "qk_rope_head_dim",
    "v_dim": "v_head_dim",
}


def shape_of_row(row: Mapping[str, Any], where: str, vocab: int | None = None) -> Shape:
    """The shape of a published run; `vocab` stands in where the source doesn't print it.

    Raises InputError when a size is missing or the architecture has no layer kind here.
    """
    sizes: dict[str, Any] = {key: row.get(name) for key, name in REQUIRED.items()}
    sizes["vocab"] = sizes["vocab"] or vocab
    wrong = [Fault(f"{where}: model.{REQUIRED[key]}", "the source doesn't say") for key in sizes if not sizes[key]]
    if row.get("arch_class", "dense") not in ARCHITECTURES:
        expected = f"only {' and '.join(ARCHITECTURES)} have layer kinds here"
        wrong.append(Fault(f"{where}: model.arch_class", expected, row["arch_class"]))
    wrong += [
        Fault(f"{where}: model.{key}", "expected a table of sizes or nothing", row[key])
        for key in ("mla", "moe")
        if row.get(key) and not isinstance(row[key], Mapping)
    ]
    if wrong:
        raise InputError(*wrong)
    gated = bool(row.get("gated_mlp"))
    latent = row.get("attention") == "mla"
    return Shape(
        name=str(row.get("name") or where),
        family="published",
        **sizes,
        kv_heads=0 if latent else row.get("kv_heads") or 0,
        head_dim=0 if latent else row.get("head_dim") or 0,
        ffn=row.get("ffn_hidden") or 0,
        gated=gated,
        moe_gated=gated,
        tied=bool(row.get("tied_embedding")),
        norm="rms" if gated else "layer",
        qkv_bias=not gated,
        out_bias=not gated,
        ffn_bias=not gated,
        **_latent(row.get("mla") or {}, on=latent),
        **_experts(row.get("moe") or {}),
        provenance=str(row.get("arch_source") or ""),
    )


def _latent(mla: Mapping[str, Any], *, on: bool) -> dict[str, Any]:
    return {"attention": "mla", **{key: mla.get(name) or 0 for key, name in LATENT.items()}} if on else {}


def _experts(moe: Mapping[str, Any]) -> dict[str, Any]:
    if not moe:
        return {}
    return {
        "experts": moe.get("experts") or 0,
        "topk": moe.get("topk") or 0,
        "moe_ffn": moe.get("moe_ffn_hidden") or 0,
        "shared_experts": moe.get("shared_experts") or 0,
        "shared_ffn": (moe.get("shared_experts") and moe.get("shared_expert_ffn_hidden")) or 0,
        "first_dense": moe.get("first_dense_layers") or 0,
        "moe_every": moe.get("moe_layer_freq") or 1,
        "mtp_layers": moe.get("mtp_layers") or 0,
    }
