"""The parts a layer is made of: each states its weights, its work and how the axes cut it.

A layer is a tuple of parts and nothing else. Parameters, FLOP, GEMM shapes per rank, bytes of state and bytes of
activations are all read off the same parts, so they can't disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Cut(Enum):
    """How tensor parallelism cuts a part."""

    COLUMN = "column"  # outputs (or the width) over tp
    ROW = "row"  # inputs over tp
    NONE = "none"  # a full copy on each rank of tp


@dataclass(frozen=True)
class Linear:
    """`copies` weight matrices inputs × outputs (experts when more than one), of which a token visits `active`.

    `label` is the line of the parameter table it counts under: attention, dense_ffn, convolutions, experts,
    shared_experts, router, head, mtp. `expert` parts are cut by ep and etp, all others by tp. `bias` adds `outputs`
    parameters per copy.
    `saves` keeps the input for the weight gradient (False when an earlier linear of the layer keeps the same tensor);
    `cheap_input` says that the input comes from a norm or an activation, so selective recompute rebuilds it;
    `rebuilt` says that selective recompute runs this linear again (MLA up-projections); `enters`: the channels that
    sequence parallelism gathers before a column cut, None for its inputs where it keeps them, else 0. `rows`: of one
    sequence it works on so many rows, whatever the length (a classifier on 1, a convolution on the positions of an
    image); 0: on every token.
    """

    name: str
    label: str
    inputs: int
    outputs: int
    cut: Cut
    bias: bool = False
    copies: int = 1
    active: int = 1
    expert: bool = False
    saves: bool = True
    cheap_input: bool = False
    rebuilt: bool = False
    enters: int | None = None
    rows: int = 0

    @property
    def density(self) -> float:
        """Values that its input holds over those that it multiplies: windows of a convolution share theirs."""
        return 1.0

    @property
    def gathered(self) -> int:
        """Channels that cross into a column cut."""
        if self.cut is not Cut.COLUMN:
            return 0
        return self.inputs * self.saves if self.enters is None else self.enters


@dataclass(frozen=True)
class Convolution(Linear):
    """A matrix over windows of `kernel`² positions, `stride` apart, of an image of `side`² positions.

    `inputs` are channels · kernel², `rows` the positions of the output.
    """

    kernel: int = 1
    stride: int = 1
    side: int = 1

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return self.inputs // self.kernel**2

    @property
    def density(self) -> float:
        """The whole input is kept and read once, whatever the windows see of it."""
        return self.side**2 / (self.rows * self.kernel**2)


@dataclass(frozen=True)
class Vector:
    """`size` parameters that multiply or shift elementwise (norm gains, sinks, router corrections), no matrix multiply.

    `copies`, `active`, `expert` as in Linear; `cut` is COLUMN when tp shards it.
    """

    name: str
    label: str
    size: int
    cut: Cut = Cut.NONE
    copies: int = 1
    active: int = 1
    expert: bool = False


@dataclass(frozen=True)
class Table:
    """A lookup table rows × width (token or position embedding), rows cut by tp when COLUMN; no FLOP."""

    name: str
    label: str
    rows: int
    width: int
    cut: Cut = Cut.COLUMN


@dataclass(frozen=True)
class Core:
    """The attention product: `heads` query heads, scores over `qk_dim`, values of `v_dim`, keys from `kv_heads` heads.

    For MLA `kv_heads` equals `heads` (after the up-projection). `window` [tokens] limits the reach, None is the whole
    sequence; `chunked` makes it a block whose start no token looks past; `causal` halves the work. `linear` marks
    recurrent (linear) attention: 4 · heads · qk_dim · v_dim FLOP per token forward, whatever the sequence.
    `rebuilt`: selective recompute rebuilds q, k and v; `own_kv` False: the layer before keeps the keys and values.
    """

    name: str
    heads: int
    kv_heads: int
    qk_dim: int
    v_dim: int
    window: int | None = None
    causal: bool = True
    linear: bool = False
    rebuilt: bool = False
    chunked: bool = False
    own_kv: bool = True


@dataclass(frozen=True)
class Pointwise:
    """Memory-bound work on tensors of `width` elements per token: norm, activation, residual, rotary, router softmax.

    The forward pass moves `forward` tensors of that width through memory, the backward pass `backward`. `saved` of
    them stay for the backward pass (a norm keeps its input, a gated activation both its inputs). `cut` is COLUMN when
    tp shards the width (between a column and a row linear), NONE when sp shards the tokens instead. `active` copies
    per token for experts (`expert`); `rows` as in Linear.
    """

    name: str
    width: int
    forward: int
    backward: int
    saved: int = 0
    cut: Cut = Cut.NONE
    active: int = 1
    expert: bool = False
    rows: int = 0


Part = Linear | Vector | Table | Core | Pointwise
Parts = tuple[Part, ...]
