"""A shape: the hyper-parameters of a decoder-only transformer, and the model that they build.

One flat table of numbers serves Hugging Face configurations, model TOMLs and rows of published runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

from hwprofiles.faults import Fault, InputError, nearest
from planner.layers.attention import Heads, attention
from planner.layers.base import Parts
from planner.layers.embedding import embedding
from planner.layers.ffn import ffn
from planner.layers.head import head, mtp
from planner.layers.linear_attention import linear_attention
from planner.layers.mla import Latent, mla
from planner.layers.moe import Mixture, moe
from planner.layers.norm import VECTORS, norms, residual
from planner.model import Layer, Model

LARGEST = 10**9  # no width, vocabulary or window is longer
MOST_LAYERS = 10_000
REACHES = ("full", "window", "linear", "shared_kv")
NORM_PLACES = {
    "pre": (("attention_norm",), (), ("ffn_norm",), ()),
    "post": ((), ("post_attention_norm",), (), ("post_ffn_norm",)),
    "sandwich": (("attention_norm",), ("post_attention_norm",), ("ffn_norm",), ("post_ffn_norm",)),
    "parallel": (("attention_norm",), (), (), ()),
    "pre_beside": (("attention_norm",), (), ("ffn_norm", "beside_norm"), ()),
}
"""Norms before and after attention, before and after the feed-forward block."""


@dataclass(frozen=True)
class Shape:
    """Hyper-parameters of a model; widths in channels, `window` in tokens, 0 means "none" unless said otherwise.

    `kv_heads` 0: as many as `heads`; `head_dim` 0: hidden / heads. `ffn` is the dense feed-forward width. `norm` is a
    key of `VECTORS`, `norm_places` one of `NORM_PLACES` ("parallel": attention and feed-forward share one;
    "pre_beside": one more for a dense block beside the experts). `positions`: rows of a learned position table.
    `attention` is "gqa" (mha when kv_heads = heads) or "mla" with its ranks. `reaches` is a cycle over the layers of
    "full", "window", "linear" (lightning) or "shared_kv" (keys and values of the layer before). `shared_ffn` is the
    width of all shared experts (0: shared_experts · moe_ffn). Layer i has experts when i >= first_dense, i is not in
    `dense_layers` and moe_every divides i + 1.
    """

    name: str
    family: str
    layers: int
    hidden: int
    vocab: int
    heads: int
    kv_heads: int = 0
    head_dim: int = 0
    ffn: int = 0
    gated: bool = True
    tied: bool = False
    norm: str = "rms"
    norm_places: str = "pre"
    positions: int = 0
    embedding_norm: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    ffn_bias: bool = False
    head_bias: bool = False
    qk_norm: str = "none"
    sinks: bool = False
    attention: str = "gqa"
    q_rank: int = 0
    kv_rank: int = 0
    nope_dim: int = 0
    rope_dim: int = 0
    v_dim: int = 0
    reaches: tuple[str, ...] = ("full",)
    window: int = 0
    chunked: bool = False
    experts: int = 0
    topk: int = 0
    moe_ffn: int = 0
    moe_gated: bool = True
    shared_experts: int = 0
    shared_ffn: int = 0
    shared_gate: bool = False
    router_bias: bool = False
    router_correction: bool = False
    expert_bias: bool = False
    first_dense: int = 0
    moe_every: int = 1
    dense_layers: tuple[int, ...] = ()
    mtp_layers: int = 0
    provenance: str = ""

    def reach(self, layer: int) -> str:
        """What the attention of one layer sees, an item of `REACHES`."""
        return self.reaches[layer % len(self.reaches)]

    def has_experts(self, layer: int) -> bool:
        """Whether the feed-forward block of one layer is a mixture."""
        chosen = layer >= self.first_dense and (layer + 1) % self.moe_every == 0
        return self.experts > 0 and chosen and layer not in self.dense_layers


REQUIRED = ("layers", "hidden", "vocab", "heads", "moe_every")
_TYPES = {"int": int, "bool": bool, "str": str}
_CHOICES = {
    "norm": tuple(VECTORS),
    "norm_places": tuple(NORM_PLACES),
    "qk_norm": ("none", "head", "full"),
    "attention": ("gqa", "mla"),
}


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
    before = embedding(
        shape.hidden, shape.vocab, positions=shape.positions, normed=shape.embedding_norm, norm_kind=shape.norm
    )
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
        embedding=Layer("embedding", before),
        head=Layer("head", head(shape.hidden, shape.vocab, shape.norm, bias=shape.head_bias)),
        mtp=Layer("mtp", mtp(shape.hidden, shape.norm, last)) if shape.mtp_layers else None,
        mtp_layers=shape.mtp_layers,
        tied=shape.tied,
        provenance=shape.provenance,
    )


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
        *(_mixture(shape) if experts else _dense(shape)),
        *places[3],
        *residual("ffn_residual", shape.hidden),
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
        )
    )


def _dense(shape: Shape) -> Parts:
    """The dense block; in a parallel layer it reads the tensor that the attention keeps."""
    own_input = shape.norm_places != "parallel"
    return ffn(shape.hidden, shape.ffn, gated=shape.gated, bias=shape.ffn_bias, saves_input=own_input)


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


def faults(shape: Shape, where: str) -> list[Fault]:
    """Everything wrong with a shape; types and ranges first, relations only between sound values."""
    found = [fault for each in fields(Shape) for fault in _value_faults(where, each.name, str(each.type), shape)]
    return found or [
        Fault(f"{where}: {key}", expected, getattr(shape, key)) for key, expected, broken in RULES if broken(shape)
    ]


def _value_faults(where: str, key: str, kind: str, shape: Shape) -> Iterator[Fault]:
    value = getattr(shape, key)
    place = f"{where}: {key}"
    if kind in _TYPES and type(value) is not _TYPES[kind]:
        noun = {"int": "a whole number", "bool": "true or false", "str": "text"}[kind]
        yield Fault(place, f"expected {noun}", value)
    elif kind == "int" and not (key in REQUIRED) <= value <= (MOST_LAYERS if key == "layers" else LARGEST):
        yield Fault(place, f"expected {int(key in REQUIRED)} to {MOST_LAYERS if key == 'layers' else LARGEST}", value)
    elif key in _CHOICES and value not in _CHOICES[key]:
        hint = nearest(value, [str(x) for x in _CHOICES[key]]) if isinstance(value, str) else None
        yield Fault(place, f"expected one of {', '.join(map(str, _CHOICES[key]))}", value, hint)
    elif kind.startswith("tuple") and not isinstance(value, tuple):
        yield Fault(place, "expected a list", value)
    elif key == "reaches" and not (value and all(reach in REACHES for reach in value)):
        yield Fault(place, f"expected a list of {', '.join(REACHES)}", value)
    elif key == "dense_layers" and not all(type(i) is int and i >= 0 for i in value):
        yield Fault(place, "expected a list of layer numbers from 0", value)


Rule = tuple[str, str, Callable[[Shape], bool]]


def _latent(key: str) -> Rule:
    """Multi-head latent attention needs this width."""
    return (key, "multi-head latent attention needs it, from 1", lambda s: s.attention == "mla" and not getattr(s, key))


RULES: tuple[Rule, ...] = (
    ("kv_heads", "must divide the heads", lambda s: s.heads % (s.kv_heads or s.heads) > 0),
    (
        "heads",
        "must divide hidden when head_dim isn't given",
        lambda s: s.attention == "gqa" and not s.head_dim and s.hidden % s.heads > 0,
    ),
    *map(_latent, ("kv_rank", "nope_dim", "rope_dim", "v_dim")),
    ("reaches", "multi-head latent attention is full", lambda s: s.attention == "mla" and set(s.reaches) != {"full"}),
    ("window", "the windowed layers need a reach in tokens, from 1", lambda s: "window" in s.reaches and not s.window),
    ("topk", "must not exceed the experts", lambda s: s.topk > s.experts),
    ("topk", "a mixture of experts needs it, from 1", lambda s: s.experts > 0 and not s.topk),
    ("moe_ffn", "a mixture of experts needs it, from 1", lambda s: s.experts > 0 and not s.moe_ffn),
    (
        "experts",
        "no layer has them: see first_dense, moe_every, dense_layers",
        lambda s: s.experts > 0 and not any(map(s.has_experts, range(s.layers))),
    ),
    (
        "experts",
        "must be 1 or more when widths of experts are given",
        lambda s: not s.experts and s.moe_ffn + s.shared_experts + s.shared_ffn > 0,
    ),
    ("shared_gate", "there is no shared expert", lambda s: s.shared_gate and not s.shared_ffn + s.shared_experts),
    (
        "ffn",
        "the dense layers need a width, from 1",
        lambda s: not s.ffn and not all(map(s.has_experts, range(s.layers))),
    ),
    ("head_bias", "a tied output matrix has none", lambda s: s.tied and s.head_bias),
    ("first_dense", "must not exceed the layers", lambda s: s.first_dense > s.layers),
    ("dense_layers", "expected numbers below the layers", lambda s: any(i >= s.layers for i in s.dense_layers)),
)
"""Key, what is expected of it, and when that is broken."""
