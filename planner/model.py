"""A model: kinds of layers, their order in depth, and what stands before and behind them.

All counts are read off the parts (`planner.layers`), never stored beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from planner.layers.base import Core, Linear, Parts, Table, Vector

BACKWARD_OVER_FORWARD = 2  # dgrad and wgrad each repeat the forward matrix multiply


@dataclass(frozen=True)
class Layer:
    """One kind of layer (dense, moe, embedding, head, mtp): a name and its parts.

    `takes`: the shape of what one sequence brings in where that is an image (channels, height, width); () where it is
    hidden states, one a token.
    """

    name: str
    parts: Parts
    takes: tuple[int, ...] = ()

    def parameters(self) -> Counter[str]:
        """Parameters by label, all copies."""
        return _parameters(self.parts, active=False)

    def active_parameters(self) -> Counter[str]:
        """Parameters by label that one token uses."""
        return _parameters(self.parts, active=True)

    def linear_flops(self) -> int:
        """Forward FLOP per token of the matrix multiplies with weights that every token passes."""
        return sum(2 * p.inputs * p.outputs * p.active for p in self.parts if isinstance(p, Linear) and not p.rows)

    def sequence_flops(self) -> int:
        """Forward FLOP per sequence of the other ones: classifiers and convolutions, whatever the length."""
        return sum(2 * p.inputs * p.outputs * p.rows for p in self.parts if isinstance(p, Linear) and p.rows)

    def attention_flops(self, seq_len: int, *, causal: bool) -> float:
        """Forward FLOP per token of the attention products; `causal` counts the masked half out."""
        return sum(core_flops(p, seq_len, causal=causal) for p in self.parts if isinstance(p, Core))

    def forward_flops(self, seq_len: int, *, causal: bool) -> float:
        """Forward FLOP per token, all together."""
        total = self.linear_flops() + self.attention_flops(seq_len, causal=causal)
        fixed = self.sequence_flops()
        return total + fixed / seq_len if fixed else total

    def entering(self) -> int:
        """Values that one sequence brings in; 0 where each token brings a hidden state."""
        return prod(self.takes) if self.takes else 0


def core_flops(core: Core, seq_len: int, *, causal: bool) -> float:
    """Forward FLOP per token of one attention product over `seq_len` tokens, averaged over the sequence."""
    if core.linear:
        return 4.0 * core.heads * core.qk_dim * core.v_dim
    reach = float(seq_len)
    if core.window is not None:
        reach = min(reach, float(core.window))
    if causal and core.causal and core.chunked:
        reach /= 2.0
    elif causal and core.causal:
        reach = reach * (1.0 - reach / (2.0 * seq_len))
    return 2.0 * core.heads * (core.qk_dim + core.v_dim) * reach


def _parameters(parts: Parts, *, active: bool) -> Counter[str]:
    count: Counter[str] = Counter()
    for part in parts:
        if isinstance(part, Linear):
            each = part.inputs * part.outputs + part.bias * part.outputs
            count[part.label] += each * (part.active if active else part.copies)
        elif isinstance(part, Vector):
            count[part.label] += part.size * (part.active if active else part.copies)
        elif isinstance(part, Table):
            count[part.label] += part.rows * part.width
    return count


@dataclass(frozen=True)
class Model:
    """`kinds[order[i]]` is layer i; `embedding` stands before them, `head` (final norm, output matrix, loss) behind.

    `mtp` is one multi-token-prediction module (None when the model has none), repeated `mtp_layers` times; it
    shares embedding and output matrix, whose work it repeats. `tied`: the head uses the embedding's weights.
    `experts` and `topk` are 0 for a dense model; `kv_heads` is 0 for MLA, `vocab` and `heads` where there are none.
    `predicts`: the next "tokens", "masked" ones or "classes" of whole sequences. `sequence`: the one length [tokens]
    that it takes, 0 for any; a model that is all convolutions takes an image as a sequence of one token. `provenance`
    says where the shape is from.
    """

    name: str
    family: str
    hidden: int
    vocab: int
    heads: int
    kv_heads: int
    experts: int
    topk: int
    kinds: tuple[Layer, ...]
    order: tuple[int, ...]
    embedding: Layer
    head: Layer
    mtp: Layer | None = None
    mtp_layers: int = 0
    tied: bool = False
    predicts: str = "tokens"
    sequence: int = 0
    provenance: str = field(default="", compare=False)

    @property
    def layers(self) -> int:
        """Decoder layers, without MTP."""
        return len(self.order)

    @property
    def boundary(self) -> int:
        """Values per token that cross from stage to stage; between convolutions the widest tensor, an upper bound."""
        return max(layer.entering() for layer in (*self.kinds, self.head)) or self.hidden

    @property
    def longest(self) -> int:
        """Most tokens of a sequence: rows of the table of learned positions; 0 where there is none."""
        tables = (part.rows for part in self.embedding.parts if isinstance(part, Table) and part.name == "positions")
        return self.sequence or next(tables, 0)

    def stack(self) -> Iterator[Layer]:
        """Embedding, layers in depth, head (without MTP)."""
        yield self.embedding
        yield from (self.kinds[kind] for kind in self.order)
        yield self.head

    def parameters(self) -> Counter[str]:
        """Parameters by label (tied weights once, MTP under `mtp` and outside `total_parameters`)."""
        return self._count(active=False)

    def active_parameters(self) -> Counter[str]:
        """Parameters by label that one token uses; embedding and head both counted."""
        return self._count(active=True)

    def total_parameters(self) -> int:
        """All parameters but those of MTP."""
        return sum(n for label, n in self.parameters().items() if label != "mtp")

    def total_active(self) -> int:
        """Active parameters but those of MTP."""
        return sum(n for label, n in self.active_parameters().items() if label != "mtp")

    def flops_per_token(self, seq_len: int, *, causal: bool, mtp: bool = True) -> float:
        """Forward and backward FLOP per trained token ("model FLOP", no recompute).

        `causal` counts masked scores out (half of full attention). Source: Narayanan 2021, appendix; the embedding
        lookup counts nothing, the output matrix counts in full.
        """
        forward = sum(x.forward_flops(seq_len, causal=causal) for x in self.stack())
        if mtp and self.mtp is not None:
            extra = self.mtp.linear_flops() + self.mtp.attention_flops(seq_len, causal=causal)
            forward += self.mtp_layers * (extra + self.head.linear_flops())
        return (1 + BACKWARD_OVER_FORWARD) * forward

    def _count(self, *, active: bool) -> Counter[str]:
        total: Counter[str] = Counter()
        for layer in self.stack():
            total.update(layer.active_parameters() if active else layer.parameters())
        if self.tied:
            total["head"] -= self.vocab * self.hidden
        if self.mtp is not None:
            part = self.mtp.active_parameters() if active else self.mtp.parameters()
            total["mtp"] = self.mtp_layers * sum(part.values())
        return total
