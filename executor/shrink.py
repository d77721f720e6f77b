"""A small model of the same make: every kind of layer stays, in the order of depth; widths, depth and experts shrink.

Ratios are kept as far as whole numbers allow: feed-forward to hidden, key-value to query heads, latent ranks to
hidden, shared to routed width, kinds of layers to one another. The result is the table of a model TOML.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import Any

from executor.shapes import shapes
from planner.divisibility import divisors
from planner.families.table import KIND_KEYS
from planner.model import Model
from planner.shape import Shape

Table = dict[str, Any]

BYTES = 256  # the vocabulary of byte-level text
UNIT = 8  # widths are multiples of it
LEAST_TOPK = 2  # a token that visits several experts keeps doing so
WHOLE_KEYS = ("tied", "norm", "embedding_norm", "head_bias", "family")
DEFAULTS = {field.name: field.default for field in fields(Shape)}


@dataclass(frozen=True)
class Size:
    """What the small model should come to: `hidden` channels, `layers`, `experts` at most, `heads`, `seq_len` tokens.

    `cut` is what tensor and context parallelism together cut heads and widths by, `ep` what divides the experts.
    """

    hidden: int = 64
    layers: int = 4
    experts: int = 16
    heads: int = 4
    seq_len: int = 64
    cut: int = 1
    ep: int = 1


def shrink(model: Model, size: Size, seq_len: int) -> Table:
    """The table (see `planner.families.table`) of the small model; windows scale with the plan's `seq_len` [tokens]."""
    found = shapes(model)
    order = thinned(model.order, max(size.layers, len(set(model.order))))
    kinds = {
        kind.name: _small(shape, model, size, seq_len) for kind, shape in zip(model.kinds, found.kinds, strict=True)
    }
    return {
        "name": f"{model.name}-proxy",
        "source": source(model),
        "hidden": size.hidden,
        "vocab": BYTES,
        "heads": size.heads,
        "positions": size.seq_len if found.whole.positions else 0,
        "mtp_layers": min(model.mtp_layers, 1),
        **{key: getattr(found.whole, key) for key in WHOLE_KEYS},
        "kinds": {name: _own(shape) for name, shape in kinds.items()},
        "order": [{"kind": model.kinds[kind].name, "count": len(list(run))} for kind, run in groupby(order)],
    }


def source(model: Model) -> str:
    """Where the small model is from."""
    return f"shrunk from {model.name}"


def toml(table: Mapping[str, Any]) -> str:
    """The table as the text of a model TOML."""
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if key not in ("kinds", "order")]
    entries = ", ".join(f"{{ kind = {_value(row['kind'])}, count = {row['count']} }}" for row in table["order"])
    lines.append(f"order = [{entries}]")
    for name, own in table["kinds"].items():
        lines += ["", f"[kinds.{json.dumps(name)}]", *(f"{key} = {_value(value)}" for key, value in own.items())]
    return "\n".join(lines) + "\n"


def thinned(order: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`count` layers that stand for `order`: each kind in proportion (one at least), at the depths where it stood."""
    total = Counter(order)
    wanted = _apportion(total, min(count, len(order)))
    placed: list[tuple[int, int]] = []
    for kind, many in wanted.items():
        depths = [depth for depth, each in enumerate(order) if each == kind]
        placed += [(depths[(2 * j + 1) * len(depths) // (2 * many)], kind) for j in range(many)]
    return tuple(kind for _, kind in sorted(placed))


def _apportion(total: Counter[int], count: int) -> dict[int, int]:
    """Whole shares of `count`, at least one each, by the largest quotient (the method of Webster)."""
    shares = dict.fromkeys(sorted(total), 1)
    for _ in range(count - len(shares)):
        open_kinds = [kind for kind in shares if shares[kind] < total[kind]]
        shares[max(open_kinds, key=lambda kind: total[kind] / (shares[kind] + 0.5))] += 1
    return shares


def _small(shape: Shape, model: Model, size: Size, seq_len: int) -> Shape:
    unit = math.lcm(UNIT, size.cut)

    def width(value: int) -> int:
        return max(unit, round(value * size.hidden / model.hidden / unit) * unit) if value else 0

    experts = min(shape.experts, size.experts)
    experts += -experts % size.ep
    head_dim = max(UNIT, size.hidden // size.heads // 2 * 2)
    per_head = head_dim / (shape.nope_dim or head_dim)
    return replace(
        shape,
        heads=size.heads,
        kv_heads=_kv_heads(shape, size.heads, size.cut) if shape.kv_heads else 0,
        head_dim=head_dim,
        ffn=width(shape.ffn),
        q_rank=width(shape.q_rank),
        kv_rank=width(shape.kv_rank),
        nope_dim=head_dim if shape.nope_dim else 0,
        rope_dim=_even(shape.rope_dim * per_head),
        v_dim=_even(shape.v_dim * per_head),
        window=max(2, round(shape.window * size.seq_len / seq_len)) if shape.window else 0,
        experts=experts,
        topk=_topk(shape, experts) if experts else 0,
        moe_ffn=width(shape.moe_ffn),
        shared_ffn=width(shape.shared_ffn),
    )


def _even(value: float) -> int:
    return max(2, round(value / 2) * 2) if value else 0


def _kv_heads(shape: Shape, heads: int, cut: int) -> int:
    """Key-value heads in proportion; each of the `cut` ranks keeps one of its own where there are enough."""
    least = math.gcd(cut, shape.kv_heads)
    legal = [count for count in divisors(heads) if count % least == 0]
    return min(legal, key=lambda count: (abs(count - heads * shape.kv_heads / shape.heads), count))


def _topk(shape: Shape, experts: int) -> int:
    wanted = round(shape.topk * experts / shape.experts)
    return min(max(wanted, min(shape.topk, LEAST_TOPK)), shape.topk, experts)


def _own(shape: Shape) -> Table:
    """What a kind says itself: its reach, and each field that isn't the default."""
    own = {key: getattr(shape, key) for key in KIND_KEYS if key in DEFAULTS and key not in ("name", "family")}
    return {"reach": shape.reach(0), **{key: value for key, value in own.items() if value != DEFAULTS[key]}}


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
