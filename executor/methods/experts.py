"""Fewer experts in a trained mixture: the least used are dropped, or the most alike are merged.

Dropped: the router loses their rows, so the tokens go to others; the result is a smaller model of the same kind (Lu
2024, arXiv:2402.14800). Merged: experts of one cluster become their mean by load and the router stays whole, with a
table from its choices to the merged experts (Li 2023, arXiv:2310.01334), so experts that were equal before give exactly
what they gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from executor.layers.moe import Dispatcher, Experts, Mixture
from executor.layers.router import Router, routing_of
from executor.model import Decoder, build
from planner.compression import get
from planner.errors import Fault, InputError
from planner.layers.base import Linear, Part, Vector
from planner.model import Layer, Model

WIDTH = {"up": 2, "gate": 2, "down": 1, "up_bias": 1, "gate_bias": 1}
"""Parameters of the experts that have their inner channels, each with the dimension of those."""
State = dict[str, Tensor]
Map = dict[str, Tensor]  # mixture's name -> the new expert of each old one [experts]


@dataclass(frozen=True)
class Routed:
    """What the router of one mixture did: `load` [experts] tokens, `together` [experts, experts] tokens of both."""

    load: Tensor
    together: Tensor


@torch.no_grad()
def routed(module: nn.Module, batches: Iterable[Tensor]) -> dict[str, Routed]:
    """Loads and co-activation of every mixture of a model over `batches` of inputs, by the mixture's name."""
    found: dict[str, Routed] = {}
    handles = [
        part.register_forward_hook(_counting(name.removesuffix(".router"), part.experts, found))
        for name, part in module.named_modules()
        if isinstance(part, Router)
    ]
    was = module.training
    module.eval()
    try:
        for batch in batches:
            module(batch)
    finally:
        module.train(was)
        for handle in handles:
            handle.remove()
    return found


def drop(model: Model, state: State, loads: Mapping[str, Routed], keep: int) -> tuple[Model, State]:
    """The model with the `keep` most used experts of each mixture, in their order, and its parameters."""
    _check(model, keep)
    smaller, routing = get(f"experts:{keep}").changed(model), routing_of(model)
    if routing_of(smaller) != routing:
        expected = f"the router chooses among {routing.groups} groups of experts, which {keep} can't keep"
        raise InputError(Fault("experts", expected, keep))
    kept = {name: _used(each.load, keep, routing.groups) for name, each in loads.items()}
    return smaller, {name: _rows(name, each, kept) for name, each in state.items()}


def merge(
    model: Model, state: State, loads: Mapping[str, Routed], keep: int, together: float = 0.0
) -> tuple[Model, State, Map]:
    """The model with `keep` merged experts in each mixture, its parameters, and which expert became which.

    Alike: cosine of their weights, and with weight `together` cosine of whom they are chosen with. The most alike two
    clusters are joined until `keep` are left; a merged expert is the mean of its members by load.
    """
    _check(model, keep)
    maps = {name: clusters(_likeness(name, state, each, together), keep) for name, each in loads.items()}
    state = aligned(state, maps, loads)
    merged = {name: _joined(name, each, maps, loads) for name, each in state.items()}
    return fewer(model, keep), merged, maps


def built(model: Model, state: State, maps: Map | None = None) -> Decoder:
    """The twin of `model` with its parameters; with the `maps` of `merge`, of the `model` as it was before."""
    small = model
    if maps:
        small = fewer(model, 1 + max(int(target.max()) for target in maps.values()))
    module = build(small, routing=routing_of(model))
    missing = {name for name, _ in module.named_parameters()} - state.keys()
    if missing:
        raise InputError(Fault("state", f"parameters are missing: {', '.join(sorted(missing))}"))
    module.load_state_dict(state, strict=False)
    for name, target in (maps or {}).items():
        redirect(module, name, target)
    return module


def redirect(module: nn.Module, name: str, target: Tensor) -> None:
    """Send what the router of mixture `name` chooses to expert `target[choice]`."""
    mixture = module.get_submodule(name)
    if isinstance(mixture, Mixture):
        mixture.dispatcher = _Redirected(target, mixture.dispatcher)


def fewer(model: Model, experts: int) -> Model:
    """The model with another number of experts behind the same router."""

    def cut(part: Part) -> Part:
        if isinstance(part, Linear | Vector) and part.expert and part.copies == model.experts:
            return replace(part, copies=experts)
        return part

    def smaller(layer: Layer) -> Layer:
        return replace(layer, parts=tuple(cut(part) for part in layer.parts))

    mtp = None if model.mtp is None else smaller(model.mtp)
    return replace(model, kinds=tuple(smaller(kind) for kind in model.kinds), mtp=mtp, experts=experts)


def clusters(likeness: Tensor, keep: int) -> Tensor:
    """Average-link clusters of [experts, experts] likeness: the cluster of each expert, numbered in order [experts]."""
    members = [[each] for each in range(len(likeness))]
    while len(members) > keep:
        pairs = [(a, b) for a in range(len(members)) for b in range(a)]
        a, b = max(pairs, key=lambda pair: float(likeness[members[pair[0]]][:, members[pair[1]]].mean()))
        members[b] += members.pop(a)
    target = torch.empty(len(likeness), dtype=torch.int64)
    for number, each in enumerate(sorted(members, key=min)):
        target[each] = number
    return target


def aligned(state: State, maps: Map, loads: Mapping[str, Routed]) -> State:
    """The state with the inner channels of each expert in the order of its cluster's most used one.

    The order changes nothing of what an expert computes; channels that do alike are matched so that a mean keeps them
    (Li 2023, section 3.1).
    """
    found = dict(state)
    for name, target in maps.items():
        own = {key: state[f"{name}.experts.{key}"] for key in WIDTH if f"{name}.experts.{key}" in state}
        inner = torch.cat([each.movedim(WIDTH[key], 1).flatten(2) for key, each in own.items() if each.dim() == 3], 2)
        order = torch.arange(inner.size(1)).repeat(len(target), 1)
        for cluster in range(int(target.max()) + 1):
            members = (target == cluster).nonzero().flatten()
            first = members[loads[name].load[members].argmax()]
            for each in members:
                alike = inner[first].float() @ inner[each].float().t()
                order[each] = torch.from_numpy(linear_sum_assignment(alike.numpy(), maximize=True)[1])
        for key, value in own.items():
            rows = [each.index_select(WIDTH[key] - 1, order[index]) for index, each in enumerate(value)]
            found[f"{name}.experts.{key}"] = torch.stack(rows)
    return found


class _Redirected:
    """A dispatcher behind a table of experts."""

    def __init__(self, target: Tensor, behind: Dispatcher) -> None:
        self._target, self._behind = target, behind

    def __call__(self, x: Tensor, ids: Tensor, weights: Tensor, experts: Experts) -> Tensor:
        chosen = torch.where(ids < 0, ids, self._target[ids.clamp(min=0)])
        return self._behind(x, chosen, weights, experts)


def _counting(name: str, experts: int, found: dict[str, Routed]) -> Any:
    def count(_module: nn.Module, _inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        chosen = torch.zeros(len(output[0]), experts + 1).scatter_(1, output[0] + 1, 1.0)[:, 1:]
        before = found.get(name, Routed(torch.zeros(experts), torch.zeros(experts, experts)))
        found[name] = Routed(before.load + chosen.sum(0), before.together + chosen.t() @ chosen)

    return count


def _check(model: Model, keep: int) -> None:
    if model.mtp is not None:
        raise InputError(
            Fault(model.name, "take its prediction modules off first: their experts see no deployed token")
        )
    if not max(model.topk, 1) <= keep <= model.experts:
        expected = f"expected from {model.topk} (a token visits as many) to the {model.experts} of {model.name}"
        raise InputError(Fault("experts", expected, keep))


def _used(load: Tensor, keep: int, groups: int) -> Tensor:
    """The most used experts, as many of each group, in their order [keep]."""
    best = load.view(groups, -1).argsort(dim=1, descending=True, stable=True)[:, : keep // groups]
    first = torch.arange(groups).unsqueeze(1) * (len(load) // groups)
    return (best + first).flatten().sort().values


def _rows(name: str, value: Tensor, kept: Mapping[str, Tensor]) -> Tensor:
    """The slices of the experts that stay, of everything that has one an expert."""
    mixture, _, rest = _owner(name)
    one_each = rest.startswith("experts.") or rest in {"router.gate.weight", "router.gate.bias", "router.correction"}
    return value[kept[mixture]] if mixture in kept and one_each else value


def _joined(name: str, value: Tensor, maps: Map, loads: Mapping[str, Routed]) -> Tensor:
    """The mean by load of each cluster, for the parameters of the experts."""
    mixture, _, rest = _owner(name)
    if mixture not in maps or not rest.startswith("experts."):
        return value
    target, load = maps[mixture], loads[mixture].load + 1.0  # an expert that nobody chose weighs a little
    share = torch.zeros(int(target.max()) + 1, len(target)).scatter_(0, target.unsqueeze(0), load.unsqueeze(0))
    share = share / share.sum(1, keepdim=True)
    equal = [bool((value[target == each] == value[target == each][:1]).all()) for each in range(len(share))]
    mean = torch.tensordot(share.to(value.dtype), value, dims=1)
    first = torch.stack([value[target == each][0] for each in range(len(share))])
    alike = torch.tensor(equal).view(-1, *[1] * (value.dim() - 1))
    return torch.where(alike, first, mean)  # equal members stay what they are, to the last bit


def _likeness(name: str, state: State, seen: Routed, together: float) -> Tensor:
    """Cosine of the experts' weights, and of whom they are chosen with: [experts, experts]."""
    weights = torch.cat([each.flatten(1) for key, each in state.items() if key.startswith(f"{name}.experts.")], 1)
    own = torch.nn.functional.normalize(weights.float())
    company = torch.nn.functional.normalize(seen.together.fill_diagonal_(0.0) if together else seen.together)
    return own @ own.t() + together * company @ company.t()


def _owner(name: str) -> tuple[str, str, str]:
    """The mixture that a parameter belongs to, and its name inside."""
    mixture, dot, rest = name.partition(".ffn.")
    return (f"{mixture}.ffn", dot, rest)
