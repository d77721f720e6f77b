"""What a placement is made of, from and for. All of one layer, unless it says layers.

A GPU g of `Grid` stands on node g // gpus_per_node; a token's data cross the network once per node that it visits, land
on the GPU of its own rail there, and go on over NVLink (DeepEP's normal mode, deepseek-ai/DeepEP).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.errors import Fault, InputError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """Routing of some tokens: `ids` [layers, tokens, topk] expert ids, `src` [tokens] source GPUs.

    `seq` [tokens] is the sequence a token belongs to (None: unknown), `layers` the numbers of the layers in the model.
    """

    ids: Ints
    src: Ints
    experts: int
    seq: Ints | None = None
    layers: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return int(self.src.size)

    def part(self, chosen: NDArray[np.bool_]) -> Trace:
        """The tokens at `chosen` [tokens]."""
        seq = None if self.seq is None else self.seq[chosen]
        return Trace(self.ids[:, chosen], self.src[chosen], self.experts, seq, self.layers)

    def halves(self, seed: int = 0) -> tuple[Trace, Trace]:
        """Two halves by sequence (by token where sequences are unknown): to plan with, and to judge by.

        Each source GPU has about as many tokens in either, or the busiest NIC would tell of the draw.
        """
        first = half(self.seq if self.seq is not None else np.arange(self.tokens), self.src, seed)
        return self.part(first), self.part(~first)


def half(seq: Ints, src: Ints, seed: int) -> NDArray[np.bool_]:
    """True for the tokens of the first half: sequences in a seeded order, longest first, each to the half in which its
    source GPU, then all of them, have fewer tokens so far.
    """
    _, found, place, size = np.unique(seq, return_index=True, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(size.size)
    order = order[np.argsort(-np.floor(2.0 * np.log2(size[order])), kind="stable")]  # about as long: at random
    coin = np.where(rng.random(size.size) < 0.5, 1, -1).tolist()
    lead, ahead = [0] * (int(src.max(initial=0)) + 1), 0  # tokens that the first half has more
    chosen = np.zeros(size.size, dtype=bool)
    for each, source, tokens in zip(order.tolist(), src[found[order]].tolist(), size[order].tolist(), strict=True):
        sign = 1 if (lead[source] or ahead or coin[each]) < 0 else -1
        chosen[each] = sign > 0
        lead[source] += sign * tokens
        ahead += sign * tokens
    return np.asarray(chosen[place])


@dataclass(frozen=True)
class Grid:
    """The GPUs of one expert-parallel group; `nics` per node, 0 for one a GPU."""

    nodes: int
    gpus_per_node: int
    nics: int = 0

    @property
    def gpus(self) -> int:
        """All GPUs."""
        return self.nodes * self.gpus_per_node

    def slots(self, number: int) -> Ints:
        """The GPU of each of `number` slots, as even as whole slots allow, the remainder spread over the nodes."""
        each, rest = divmod(number, self.gpus)
        count = np.full(self.gpus, each)
        order = np.arange(self.gpus).reshape(self.nodes, self.gpus_per_node).T.ravel()
        count[order[:rest]] += 1
        return np.repeat(np.arange(self.gpus), count)


@dataclass(frozen=True)
class Rates:
    """What the cluster achieves: `nic` [B/s] of one NIC, `nvlink` [B/s] of one GPU, each one way; `alpha` [s] a phase;
    `flops` [FLOP/s] of one GPU in the expert GEMM. A value takes `dispatch_bytes` out (fp8 and scales) and
    `combine_bytes` back (bf16).
    """

    nic: float = 50e9
    nvlink: float = 160e9
    alpha: float = 10e-6
    flops: float = 600e12
    dispatch_bytes: float = 1.03125
    combine_bytes: float = 2.0


@dataclass(frozen=True)
class Expert:
    """One expert: a gated block hidden → ffn → hidden; bytes a parameter of its weights and its optimizer state."""

    hidden: int
    ffn: int
    param_bytes: float = 2.0
    optimizer_bytes: float = 12.0

    @property
    def parameters(self) -> int:
        """Weights of one expert."""
        return 3 * self.hidden * self.ffn


@dataclass(frozen=True)
class Placement:
    """`slot_expert` [R], `slot_gpu` [R], `share` [R]: the part of its expert's tokens that a slot serves."""

    slot_expert: Ints
    slot_gpu: Ints
    share: Floats

    @property
    def slots(self) -> int:
        """Number of slots."""
        return int(self.slot_expert.size)

    def table(self, experts: int) -> Ints:
        """Slots of each expert [experts, most replicas], in order, padded with -1."""
        order = np.argsort(self.slot_expert, kind="stable")
        count = np.bincount(self.slot_expert, minlength=experts)
        start = np.cumsum(count) - count
        found = np.full((experts, int(count.max())), -1, dtype=np.int64)
        found[self.slot_expert[order], np.arange(order.size) - start[self.slot_expert[order]]] = order
        return found


def even(slot_expert: Ints, slot_gpu: Ints) -> Placement:
    """A placement whose replicas share alike."""
    count = np.bincount(slot_expert)
    return Placement(np.asarray(slot_expert), np.asarray(slot_gpu), 1.0 / count[slot_expert])


def check(placement: Placement, experts: int, grid: Grid) -> None:
    """InputError when an expert has no slot, a GPU or expert does not exist, or shares don't sum to 1."""
    e, g, share = placement.slot_expert, placement.slot_gpu, placement.share
    faults = []
    if e.size != g.size or e.size != share.size:
        raise InputError(Fault("slot_expert", "expected as many entries as slot_gpu and share have", e.size))
    for name, values, size in (("slot_expert", e, experts), ("slot_gpu", g, grid.gpus)):
        wrong = np.flatnonzero((values < 0) | (values >= size))
        if wrong.size:
            faults.append(Fault(f"{name}[{wrong[0]}]", f"expected 0 to {size - 1}", int(values[wrong[0]])))
    if faults:
        raise InputError(*faults)
    missing = np.flatnonzero(np.bincount(e, minlength=experts) == 0)
    if missing.size:
        faults.append(Fault("slot_expert", "every expert needs a slot; missing", int(missing[0])))
    total = np.bincount(e, weights=share, minlength=experts)
    if (share < 0).any() or (np.abs(total - 1.0) > 1e-6).any():
        faults.append(Fault("share", "the shares of an expert are non-negative and sum to 1", float(total.max())))
    if faults:
        raise InputError(*faults)


@dataclass(frozen=True)
class Metrics:
    """What a placement costs for some tokens.

    `balance`, `node_balance`: largest load over the mean [1]. `nodes_per_token`, `remote_nodes`: distinct nodes that a
    token visits, and those not its own. `nic_bytes`, `nvlink_bytes` [B]: the busiest NIC and GPU, dispatch only.
    `all_to_all_s` dispatch and combine, `gemm_s` of the fullest GPU, `layer_s` their sum [s].
    """

    balance: float
    node_balance: float
    nodes_per_token: float
    remote_nodes: float
    nic_bytes: float
    nvlink_bytes: float
    all_to_all_s: float
    gemm_s: float
    layer_s: float


@dataclass(frozen=True)
class Answer:
    """The placement of one layer with what it costs on tokens that it was not planned with.

    `baseline` has the metrics of EPLB's policies, `bounds` lower bounds of `balance` and `nodes_per_token`, `algorithm`
    the member of the portfolio that won, `moved` slots that change hands against an old placement.
    """

    layer: int
    placement: Placement
    metrics: Metrics
    baseline: dict[str, Metrics]
    bounds: dict[str, float]
    algorithm: str
    moved: int = 0
    moved_between_nodes: int = 0
