"""Hyper-parameters: the flat table of numbers that describes a transformer, and everything that can be wrong with it.

One table serves Hugging Face configurations, model TOMLs and rows of published runs; `planner.shape` builds the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from hwprofiles.faults import Fault, nearest
from planner.layers.norm import VECTORS

LARGEST = 10**9  # no width, vocabulary or window is longer
MOST_LAYERS = 10_000
REACHES = ("full", "window", "linear", "shared_kv")
NORM_PLACES: dict[str, tuple[tuple[str, ...], ...]] = {
    "pre": (("attention_norm",), (), (), ("ffn_norm",), (), ()),
    "post": ((), ("post_attention_norm",), (), (), ("post_ffn_norm",), ()),
    "sandwich": (("attention_norm",), ("post_attention_norm",), (), ("ffn_norm",), ("post_ffn_norm",), ()),
    "parallel": (("attention_norm",), (), (), (), (), ()),
    "pre_beside": (("attention_norm",), (), (), ("ffn_norm", "beside_norm"), (), ()),
    "add_norm": ((), (), ("attention_sum_norm",), (), (), ("ffn_sum_norm",)),
}
"""Norms before and after attention and of its sum with x, before and after the feed-forward block and of its sum."""
PREDICTS = ("tokens", "masked", "classes")


@dataclass(frozen=True)
class Shape:
    """Hyper-parameters of a model; widths in channels, `window` in tokens, 0 means "none" unless said otherwise.

    `kv_heads` 0: as many as `heads`; `head_dim` 0: hidden / heads. `ffn` is the dense feed-forward width. `norm` is a
    key of `VECTORS`, `norm_places` one of `NORM_PLACES` ("parallel": attention and feed-forward share one;
    "pre_beside": one more for a dense block beside the experts; "add_norm": of the residual stream itself, as in BERT,
    which then has no final norm). `positions`: rows of a learned position table, `token_types` of one of token types.
    `predicts`: the next "tokens", "masked" ones behind a transformation, or `classes` of a whole sequence, of its first
    token as it is or `pooled`. `image`: side of square images [pixels] of `channels`, cut into patches of `patch`²,
    which are the sequence in place of a vocabulary. `causal`, `rotary`: off in BERT and ViT.
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
    causal: bool = True
    rotary: bool = True
    token_types: int = 0
    predicts: str = "tokens"
    classes: int = 0
    pooled: bool = False
    image: int = 0
    patch: int = 0
    channels: int = 3
    provenance: str = ""

    def reach(self, layer: int) -> str:
        """What the attention of one layer sees, an item of `REACHES`."""
        return self.reaches[layer % len(self.reaches)]

    def has_experts(self, layer: int) -> bool:
        """Whether the feed-forward block of one layer is a mixture."""
        chosen = layer >= self.first_dense and (layer + 1) % self.moe_every == 0
        return self.experts > 0 and chosen and layer not in self.dense_layers


REQUIRED = ("layers", "hidden", "heads", "moe_every", "channels")
_TYPES = {"int": int, "bool": bool, "str": str}
_CHOICES = {
    "norm": tuple(VECTORS),
    "norm_places": tuple(NORM_PLACES),
    "qk_norm": ("none", "head", "full"),
    "attention": ("gqa", "mla"),
    "predicts": PREDICTS,
}


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
    (
        "head_bias",
        'belongs to predicts = "tokens"; the other heads have theirs',
        lambda s: s.head_bias and s.predicts != "tokens",
    ),
    ("vocab", "a model of text needs it, from 1", lambda s: not s.vocab and not s.image),
    ("vocab", "an image has none", lambda s: s.vocab > 0 and s.image > 0),
    (
        "predicts",
        'add_norm has no final norm: "masked" or "classes"',
        lambda s: s.norm_places == "add_norm" and s.predicts == "tokens",
    ),
    (
        "predicts",
        'what is seen from both sides is "masked" or has "classes"',
        lambda s: not s.causal and s.predicts == "tokens",
    ),
    ("predicts", 'an image has "classes"', lambda s: s.image > 0 and s.predicts != "classes"),
    (
        "causal",
        "only full attention without sinks looks ahead",
        lambda s: not s.causal and (set(s.reaches) != {"full"} or s.sinks or s.attention == "mla"),
    ),
    (
        "rotary",
        "latent and linear attention turn their own",
        lambda s: not s.rotary and (s.attention == "mla" or "linear" in s.reaches),
    ),
    ("classes", "a classifier needs them, from 1", lambda s: s.predicts == "classes" and not s.classes),
    ("classes", 'only with predicts = "classes"', lambda s: s.predicts != "classes" and (s.classes > 0 or s.pooled)),
    ("tied", "a classifier has no vocabulary to share", lambda s: s.predicts == "classes" and s.tied),
    ("mtp_layers", 'only with predicts = "tokens"', lambda s: s.predicts != "tokens" and s.mtp_layers > 0),
    ("patch", "must divide the image", lambda s: s.image > 0 and (not s.patch or s.image % s.patch > 0)),
    (
        "token_types",
        "patches of an image have none",
        lambda s: s.image > 0 and s.token_types + s.positions + s.embedding_norm > 0,
    ),
    ("first_dense", "must not exceed the layers", lambda s: s.first_dense > s.layers),
    ("dense_layers", "expected numbers below the layers", lambda s: any(i >= s.layers for i in s.dense_layers)),
)
"""Key, what is expected of it, and when that is broken."""
