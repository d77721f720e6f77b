"""A model: kinds of layers, their order in depth, and what stands before and behind them.

All counts are read off the parts (`planner.layers`), never stored beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from planner.layers.base import Core, Linear, Parts, Table, Vector

BACKWARD_OVER_FORWARD = 2  # dgrad and wgrad each repeat the forward matrix multiply


@dataclass(frozen=True)
class Layer:
    """One kind of layer (dense, moe, embedding, head, mtp): a name and its parts."""

    name: str
    parts: Parts

    def parameters(self) -> Counter[str]:
        """Parameters by label, all copies."""
        return _parameters(self.parts, active=False)

    def active_parameters(self) -> Counter[str]:
        """Parameters by label that one token uses."""
        return _parameters(self.parts, active=True)

    def linear_flops(self) -> int:
        """Forward FLOP per token of the matrix multiplies with weights."""
        return sum(2 * p.inputs * p.outputs * p.active for p in self.parts if isinstance(p, Linear))

    def attention_flops(self, seq_len: int, *, causal: bool) -> float:
        """Forward FLOP per token of the attention products; `causal` counts the masked half out."""
        return sum(core_flops(p, seq_len, causal=causal) for p in self.parts if isinstance(p, Core))


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
    `experts` and `topk` are 0 for a dense model; `kv_heads` is 0 for MLA. `provenance` says where the shape is from.
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
    provenance: str = field(default="", compare=False)

    @property
    def layers(self) -> int:
        """Decoder layers, without MTP."""
        return len(self.order)

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
        forward = sum(x.linear_flops() + x.attention_flops(seq_len, causal=causal) for x in self.stack())
        if mtp and self.mtp is not None:
            extra = self.mtp.linear_flops() + self.mtp.attention_flops(seq_len, causal=causal)
            forward += self.mtp_layers * (extra + self.head.linear_flops())
        return (1 + BACKWARD_OVER_FORWARD) * forward

    def _count(self, *, active: bool) -> Counter[str]:
        total: Counter[str] = Counter()
        for layer in self.stack():
            total.update(layer.active_parameters() if active else layer.parameters())
        if self.tied:
            del total["head"]
        if self.mtp is not None:
            part = self.mtp.active_parameters() if active else self.mtp.parameters()
            total["mtp"] = self.mtp_layers * sum(part.values())
        return total
