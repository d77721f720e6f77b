"""Expert parallelism: tokens travel to the ranks of their experts and back, by two all-to-alls of uneven rows.

With expert tensor parallelism the ranks of an etp group gather each other's rows, compute a slice of the width and
scatter the sums. A placement says which slots hold which expert on which rank, and what share of an expert's tokens
each of its slots serves; without one, every expert has one slot, on the rank that owns its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from executor.layers.base import local
from executor.layers.fused import add_rows
from executor.layers.moe import Experts, Mixture
from executor.mesh import Meshes
from executor.model import Decoder
from executor.parallel.collectives import all_gather, all_to_all, copy, exchange, gather, scatter
from executor.parallel.deferred import at_once
from executor.parallel.recompute import recomputing
from executor.parallel.styles import cut

PHASE = "expert"
WIDTH = {"up": 2, "gate": 2, "down": 1, "up_bias": 1, "gate_bias": 1, "down_bias": None}
"""Parameters of the experts, each with the dimension that expert tensor parallelism cuts."""


@dataclass(frozen=True)
class Slots:
    """Where the experts of one layer are: slot i serves `share[i]` of the tokens of expert `expert[i]` on `rank[i]`.

    As `slot_expert`, `slot_gpu` and `share` of a placement.json; ranks are those of ep, each with as many slots.
    """

    expert: tuple[int, ...]
    rank: tuple[int, ...]
    share: tuple[float, ...]

    def faults(self, experts: int, ranks: int) -> list[str]:
        """One sentence for each way in which the slots don't fit `experts` on `ranks` of ep."""
        found = []
        if not len(self.expert) == len(self.rank) == len(self.share):
            return ["slot_expert, slot_gpu and share must have one entry a slot each"]
        loads = [self.rank.count(rank) for rank in range(ranks)]
        if sum(loads) != len(self.rank) or len(set(loads)) > 1:
            found.append(f"slot_gpu must give each of the {ranks} ranks of ep the same number of slots")
        for expert in range(experts):
            total = sum(share for own, share in zip(self.expert, self.share, strict=True) if own == expert)
            if abs(total - 1.0) > 1e-6:
                found.append(f"the shares of expert {expert} must sum to 1, not {total:g}")
        if any(not 0 <= expert < experts for expert in self.expert):
            found.append(f"slot_expert must lie between 0 and {experts - 1}")
        return found


def owned(experts: int, ranks: int) -> Slots:
    """One slot for each expert, on the rank that holds its weights."""
    each = experts // ranks
    return Slots(tuple(range(experts)), tuple(i // each for i in range(experts)), (1.0,) * experts)


def slots_by_layer(layers: Iterable[Mapping[str, Any]]) -> dict[int, Slots]:
    """The slots of each layer in the `layers` of a placement.json."""
    return {
        int(row["layer"]): Slots(tuple(row["slot_expert"]), tuple(row["slot_gpu"]), tuple(row["share"]))
        for row in layers
    }


def apply_expert(model: Decoder, meshes: Meshes, placement: Mapping[int, Slots]) -> None:
    """Cut the experts of a stage over ep and etp in place and give each mixture its dispatcher.

    `placement` by layer number; layers without one keep each expert where its weights are. Raises ValueError when a
    placement doesn't fit.
    """
    ep = meshes.size("ep")
    for name, mixture in model.named_modules():
        if not isinstance(mixture, Mixture):
            continue
        mixture.router.counting = _counting
        if ep * meshes.size("etp") == 1:
            continue
        number, layer = mixture.router.experts, layer_number(name)
        slots = placement.get(layer)
        faults = slots.faults(number, ep) if slots else []
        if faults:
            raise ValueError(f"placement of layer {layer}: {'; '.join(faults)}")
        _cut_experts(mixture.experts, meshes)
        dispatcher = Dispatcher(meshes, slots or owned(number, ep), number, moved=slots is not None)
        mixture.experts.forward = partial(dispatcher.compute, mixture.experts)  # type: ignore[method-assign]
        mixture.dispatcher = dispatcher


def traffic(model: Decoder) -> dict[int, tuple[int, int]]:
    """Rows that this rank's slots computed and bytes of rows that it sent away, by layer, since the last call."""
    found = {}
    for name, mixture in model.named_modules():
        dispatcher = getattr(mixture, "dispatcher", None)
        if isinstance(dispatcher, Dispatcher):
            found[layer_number(name)] = (dispatcher.rows, dispatcher.sent)
            dispatcher.rows = dispatcher.sent = 0
    return found


def layer_number(name: str) -> int:
    """The decoder layer that a module's name stands in; -1 for prediction modules."""
    pieces = name.split(".")
    return int(pieces[1]) if pieces[0] == "layers" else -1


def _counting() -> bool:
    return not recomputing()


def _cut_experts(experts: Experts, meshes: Meshes) -> None:
    mesh = meshes.sparse["ep", "etp"] if meshes.size("etp") > 1 else meshes.sparse["ep"]
    for name, width in WIDTH.items():
        cut(experts, name, mesh, *((0, width) if mesh.ndim > 1 else (0,)))


class Dispatcher:
    """Brings tokens to the slots of their experts and back; called as the dispatcher of a `Mixture`.

    `rows` counts the rows that this rank's slots have computed, `sent` the bytes of rows that left this rank for
    another (forward passes alone).
    """

    def __init__(self, meshes: Meshes, slots: Slots, experts: int, *, moved: bool) -> None:
        """`moved`: the slots differ from the owners, so that weights must travel too."""
        self.ep, self.etp = meshes.group("ep"), meshes.group("etp")
        self.experts, self.moved = experts, moved
        order = sorted(range(len(slots.rank)), key=lambda i: slots.rank[i])  # each rank's slots side by side
        self.slot_expert = torch.tensor([slots.expert[i] for i in order])
        self.share = torch.tensor([slots.share[i] for i in order], dtype=torch.float64)
        self.each = len(order) // self.ep.size()
        self.rows, self.sent = 0, 0

    def __call__(self, x: Tensor, ids: Tensor, weights: Tensor, experts: Experts) -> Tensor:
        """`x` [n, hidden] through its experts `ids` [n, k] (-1: none) with `weights` [n, k]."""
        slot = self._slot(ids.flatten())
        order = slot.argsort(stable=True)[int((slot < 0).sum()) :]
        source = order // ids.size(-1)
        counts = torch.bincount(slot[order], minlength=len(self.slot_expert))
        packed = torch.cat((x[source], weights.flatten()[order].unsqueeze(-1)), -1)
        out = self._travel(packed, counts, experts)
        return add_rows(out, source, len(x))

    def _travel(self, packed: Tensor, counts: Tensor, experts: Experts) -> Tensor:
        """Rows sorted by slot, with their weight as last column, to the slots and back."""
        ways = self.ep.size()
        if ways == 1:
            return self._gathered(packed, counts, experts)
        arriving = all_to_all(counts, [self.each] * ways, [self.each] * ways, self.ep, PHASE).view(ways, self.each)
        sent, got = counts.view(ways, self.each).sum(1).tolist(), arriving.sum(1).tolist()
        here = exchange(packed, got, sent, self.ep, PHASE)
        if not recomputing():
            self.sent += (sum(sent) - sent[self.ep.rank()]) * packed[:1].nbytes
        kind = torch.arange(self.each, device=packed.device).repeat(ways).repeat_interleave(arriving.flatten())
        order = kind.argsort(stable=True)
        out = self._gathered(here[order], arriving.sum(0), experts)
        return exchange(out[order.argsort()], sent, got, self.ep, PHASE)

    def _gathered(self, packed: Tensor, counts: Tensor, experts: Experts) -> Tensor:
        """Rows sorted by local slot through the experts, or through their slices on all ranks of etp."""
        ways = self.etp.size()
        if ways == 1:
            return self._run(packed, counts, experts)
        loads = all_gather(counts, 0, self.etp, PHASE).view(ways, -1)
        most = int(loads.sum(1).max())
        rows = gather(functional.pad(packed, (0, 0, 0, most - len(packed))), 0, self.etp, PHASE)
        padded = torch.cat((loads, most - loads.sum(1, keepdim=True)), 1)  # the filling is one more kind, behind all
        kind = torch.arange(padded.size(1), device=packed.device).repeat(ways).repeat_interleave(padded.flatten())
        order = kind.argsort(stable=True)
        real = int(loads.sum())
        out = self._run(rows[order[:real]], loads.sum(0), experts)
        whole = functional.pad(out, (0, 0, 0, len(rows) - real))[order.argsort()]
        return scatter(whole, 0, self.etp, PHASE)[: len(packed)]

    def _run(self, packed: Tensor, counts: Tensor, experts: Experts) -> Tensor:
        if not recomputing():
            self.rows += len(packed)
        return experts(packed[:, :-1], counts, packed[:, -1])  # type: ignore[no-any-return]

    def _slot(self, ids: Tensor) -> Tensor:
        """The slot of each choice: an expert's choices go to its slots in turn, as many to each as its share says."""
        if not self.moved:
            return ids
        order = ids.argsort(stable=True)
        counts = torch.bincount(ids[ids >= 0], minlength=self.experts)
        slots = torch.full_like(ids, -1)
        start = int((ids < 0).sum())
        for expert, count in enumerate(counts.tolist()):
            own = (self.slot_expert == expert).nonzero().flatten()
            edges = (self.share[own].cumsum(0) * count).round().long().clamp(max=count)
            sizes = edges.diff(prepend=edges.new_zeros(1))
            slots[order[start : start + count]] = own.repeat_interleave(sizes).to(ids.device)
            start += count
        return slots

    def compute(self, experts: Experts, rows: Tensor, counts: Tensor, weights: Tensor) -> Tensor:
        """The experts' forward pass with the weights of this rank's slots, fetched from their owners.

        Their gradients travel back and are summed there, so states and checkpoints know nothing of a placement.
        """
        held: dict[str, Tensor | None] = {name: getattr(experts, name) for name in WIDTH}
        if self.moved:
            held = {name: None if each is None else self._fetch(each) for name, each in held.items()}
        bias, ways = held["down_bias"], self.etp.size()
        if bias is not None and ways > 1:  # every rank of etp adds its part to the sum, and gets the whole gradient
            held["down_bias"] = copy(local(bias), self.etp, PHASE) / ways
        with at_once() if self.moved else nullcontext():
            return Experts.forward(SimpleNamespace(**held), rows, counts, weights)  # type: ignore[arg-type]

    def _fetch(self, parameter: Tensor) -> Tensor:
        """The rows of a parameter for this rank's slots."""
        mine, rank, ways = local(parameter), self.ep.rank(), self.ep.size()
        held = self.experts // ways
        owner = (self.slot_expert // held).view(ways, self.each)  # of the expert in each slot of each rank
        wanted = self.slot_expert[owner.flatten() == rank] - rank * held
        sent, got = (owner == rank).sum(1).tolist(), owner[rank].bincount(minlength=ways).tolist()
        arrived = exchange(mine.index_select(0, wanted.to(mine.device)), got, sent, self.ep, PHASE)
        return arrived.index_select(0, owner[rank].argsort(stable=True).argsort().to(mine.device))
