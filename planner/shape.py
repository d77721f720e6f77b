"""From a shape, the hyper-parameters of a transformer, to the model that they build: decoders, BERT, ViT."""

from __future__ import annotations

from dataclasses import replace

from hwprofiles.faults import InputError
from planner.hyperparameters import LARGEST, MOST_LAYERS, NORM_PLACES, REACHES, Shape, faults
from planner.layers.attention import Heads, attention
from planner.layers.base import Parts
from planner.layers.embedding import embedding, patches
from planner.layers.ffn import ffn
from planner.layers.head import class_head, head, masked_head, mtp
from planner.layers.linear_attention import linear_attention
from planner.layers.mla import Latent, mla
from planner.layers.moe import Mixture, moe
from planner.layers.norm import VECTORS, norms, residual
from planner.model import Layer, Model

__all__ = (
    "LARGEST", "MOST_LAYERS", "NORM_PLACES", "REACHES", "Shape", "assemble", "build", "faults", "layer", "resolved",
)  # fmt: skip


def build(shape: Shape, where: str = "") -> Model:
    """The model of a shape; raises InputError with every fault, each place prefixed by `where`."""
    found = faults(shape, where or shape.name)
    if found:
        raise InputError(*found)
    shape = resolved(shape)
    kinds: dict[tuple[str, bool], int] = {}
    order = [kinds.setdefault((shape.reach(i), shape.has_experts(i)), len(kinds)) for i in range(shape.layers)]
    layers = tuple(layer(shape, reach, experts=experts) for reach, experts in kinds)
    return assemble(shape, layers, tuple(order))


def assemble(shape: Shape, layers: tuple[Layer, ...], order: tuple[int, ...]) -> Model:
    """The model around the given kinds of layers; the prediction module repeats the last layer."""
    last = layers[order[-1]].parts
    return Model(
        name=shape.name,
        family=shape.family,
        hidden=shape.hidden,
        vocab=shape.vocab,
        heads=shape.heads,
        kv_heads=0 if shape.attention == "mla" else shape.kv_heads,
        experts=shape.experts,
        topk=shape.topk,
        kinds=layers,
        order=order,
        embedding=_before(shape),
        head=Layer("head", _behind(shape)),
        mtp=Layer("mtp", mtp(shape.hidden, shape.norm, last)) if shape.mtp_layers else None,
        mtp_layers=shape.mtp_layers,
        tied=shape.tied,
        predicts=shape.predicts,
        sequence=(shape.image // shape.patch) ** 2 + 1 if shape.image else 0,
        provenance=shape.provenance,
    )


def _before(shape: Shape) -> Layer:
    """The embedding of tokens, or of the patches of an image."""
    if shape.image:
        cut = patches(shape.hidden, shape.image, shape.patch, shape.channels)
        return Layer("embedding", cut, takes=(shape.channels, shape.image, shape.image))
    parts = embedding(
        shape.hidden,
        shape.vocab,
        positions=shape.positions,
        types=shape.token_types,
        normed=shape.embedding_norm,
        norm_kind=shape.norm,
    )
    return Layer("embedding", parts)


def _behind(shape: Shape) -> Parts:
    """The head for what the model predicts."""
    if shape.predicts == "masked":
        return masked_head(shape.hidden, shape.vocab, shape.norm)
    if shape.predicts == "classes":
        normed = shape.norm_places != "add_norm"
        return class_head(shape.hidden, shape.classes, shape.norm, normed=normed, pooled=shape.pooled)
    return head(shape.hidden, shape.vocab, shape.norm, bias=shape.head_bias)


def resolved(shape: Shape) -> Shape:
    """The shape with its "as usual" zeros written out."""
    return replace(
        shape,
        kv_heads=shape.kv_heads or shape.heads,
        head_dim=shape.head_dim or shape.hidden // shape.heads,
        shared_ffn=shape.shared_ffn or shape.shared_experts * shape.moe_ffn,
    )


def layer(shape: Shape, reach: str, *, experts: bool, name: str = "") -> Layer:
    """One kind of layer of a resolved shape: norms, attention, feed-forward or mixture, two residual additions."""
    places = [norms(names, shape.hidden, shape.norm) for names in NORM_PLACES[shape.norm_places]]
    parts = (
        *places[0],
        *_attention(shape, reach),
        *places[1],
        *residual("attention_residual", shape.hidden),
        *places[2],
        *places[3],
        *(_mixture(shape) if experts else _dense(shape)),
        *places[4],
        *residual("ffn_residual", shape.hidden),
        *places[5],
    )
    kind = "moe" if experts else "dense"
    return Layer(name or (kind if reach == "full" else f"{kind}_{reach}"), parts)


def _attention(shape: Shape, reach: str) -> Parts:
    if reach == "linear":
        return linear_attention(shape.hidden, shape.heads, shape.head_dim)
    if shape.attention == "mla":
        ranks = (shape.q_rank, shape.kv_rank, shape.nope_dim, shape.rope_dim, shape.v_dim)
        return mla(Latent(shape.hidden, shape.heads, *ranks, bias=shape.qkv_bias))
    return attention(
        Heads(
            hidden=shape.hidden,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            qkv_bias=shape.qkv_bias,
            out_bias=shape.out_bias,
            qk_norm=shape.qk_norm,
            norm_vectors=VECTORS[shape.norm],
            sinks=shape.sinks,
            window=shape.window if reach == "window" else None,
            chunked=shape.chunked and reach == "window",
            own_kv=reach != "shared_kv",
            causal=shape.causal,
            rotary=shape.rotary,
            normed=bool(NORM_PLACES[shape.norm_places][0]),
        )
    )


def _dense(shape: Shape) -> Parts:
    """The dense block; in a parallel layer it reads the tensor that the attention keeps."""
    own_input = shape.norm_places != "parallel"
    places = NORM_PLACES[shape.norm_places]
    return ffn(
        shape.hidden,
        shape.ffn,
        gated=shape.gated,
        bias=shape.ffn_bias,
        saves_input=own_input,
        normed=bool(places[2] or places[3]),
    )


def _mixture(shape: Shape) -> Parts:
    return moe(
        Mixture(
            hidden=shape.hidden,
            experts=shape.experts,
            topk=shape.topk,
            width=shape.moe_ffn,
            gated=shape.moe_gated,
            router_bias=shape.router_bias,
            router_correction=shape.router_correction,
            expert_bias=shape.expert_bias,
            shared_width=shape.shared_ffn,
            shared_gate=shape.shared_gate,
            shared_bias=shape.ffn_bias,
            shared_input=shape.norm_places == "pre_beside",
        )
    )
