"""The router of a mixture: which experts a token visits, and with what weight.

Softmax with top-k (Shazeer 2017; renormalised as in Mixtral), sigmoid scores with a correction that balances without a
loss (DeepSeek-V3, arXiv:2412.19437; Wang 2024, arXiv:2408.15664), groups of experts (DeepSeek-V2, arXiv:2405.04434).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.layers.base import Spec, local, matrix
from planner.model import Model

IN_GROUP = 2  # DeepSeek-V3 ranks a group by the sum of its best two scores


@dataclass(frozen=True)
class Routing:
    """How a router chooses; none of it changes the parameters.

    `score` softmax or sigmoid; `groups` of experts, of which a token may use `group_topk`; `balance`: the step of the
    correction, 0 for none; `aux`: factor of the load-balancing loss (Fedus 2021, arXiv:2101.03961); `capacity`: tokens
    that an expert takes over the mean, None for all (dropless); `scale` of the weights.
    """

    score: str = "softmax"
    groups: int = 1
    group_topk: int = 1
    balance: float = 0.0
    aux: float = 0.0
    capacity: float | None = None
    scale: float = 1.0


KNOWN = {
    "deepseek-v3": Routing("sigmoid", groups=8, group_topk=4, balance=1e-3, scale=2.5),
    "deepseek-v2": Routing(groups=8, group_topk=3),
    "deepseek": Routing("sigmoid", balance=1e-3),
    "glm4_moe": Routing("sigmoid", balance=1e-3),
    "llama4": Routing("sigmoid"),
}
"""How published models choose, by the start of their name, else by family; the others take softmax and top-k."""


def routing_of(model: Model) -> Routing:
    """The routing of a model; groups that can't divide its experts, or are too small for its top-k, are merged."""
    named = (routing for start, routing in KNOWN.items() if model.name.startswith(start))
    found = next(named, KNOWN.get(model.family, Routing()))
    groups = math.gcd(found.groups, max(model.experts, 1))
    while groups > 1 and min(found.group_topk, groups) * (model.experts // groups) < model.topk:
        groups = math.gcd(groups // 2, groups)
    return replace(found, groups=groups, group_topk=min(found.group_topk, groups))


class Router(nn.Module):
    """Logits, scores in fp32, the choice and its weights; counts the tokens of each expert while training.

    `correction` [experts] shifts the choice but not the weights; `load` [experts] counts what `update` balances.
    `counting` says whether a forward pass counts: not when activation recompute repeats it. `aux_scale`: the gradient
    of the training loss with respect to the load-balancing one; a trainer whose loss is a mean sets 1 / tokens.
    """

    correction: Tensor | None
    load: Tensor

    def __init__(self, spec: Spec, routing: Routing) -> None:
        """The router of a layer's parts."""
        super().__init__()
        part = spec.linear("router")
        self.routing, self.topk, self.experts = routing, spec.linear("experts_up").active, part.outputs
        self.gate = matrix(part)
        self.counting: Callable[[], bool] = lambda: True
        self.aux_scale = 1.0
        if "router_correction" in spec.names:
            self.correction = nn.Parameter(torch.empty(self.experts), requires_grad=False)
        else:
            self.register_buffer("correction", torch.empty(self.experts) if routing.balance else None)
        self.register_buffer("load", torch.empty(self.experts), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`x` [n, hidden] -> experts [n, k] (int64, -1 where the capacity dropped one) and their weights [n, k]."""
        logits = self.gate(x).float()
        scores = logits.sigmoid() if self.routing.score == "sigmoid" else logits.softmax(-1)
        ids = self._choose(scores.detach())
        weights = scores.gather(-1, ids)
        weights = weights / weights.sum(-1, keepdim=True) if self.topk > 1 else weights
        if self.routing.aux:
            weights = self._with_loss(weights, scores, ids)
        if self.training and self.counting():
            with torch.no_grad():
                self.load += _tokens(ids, self.experts)
        return self._within_capacity(ids), (weights * self.routing.scale).type_as(x)

    @torch.no_grad()
    def update(self) -> None:
        """After a step: shift the correction of each expert by one step towards the mean load, and count anew.

        `load` has to hold the tokens of all ranks by then.
        """
        if self.correction is not None:
            local(self.correction).add_((self.load.mean() - self.load).sign(), alpha=self.routing.balance)
        self.load.zero_()

    def _choose(self, scores: Tensor) -> Tensor:
        """The top-k experts of the best groups."""
        choice = scores if self.correction is None else scores + local(self.correction)
        if self.routing.groups > 1:
            grouped = choice.unflatten(-1, (self.routing.groups, -1))
            rank = grouped.topk(min(IN_GROUP, grouped.size(-1)), dim=-1).values.sum(-1)
            best = rank.topk(self.routing.group_topk, dim=-1).indices
            allowed = torch.zeros_like(rank, dtype=torch.bool).scatter(-1, best, value=True)
            choice = grouped.masked_fill(~allowed.unsqueeze(-1), -torch.inf).flatten(-2)
        return choice.topk(self.topk, dim=-1).indices

    def _within_capacity(self, ids: Tensor) -> Tensor:
        """-1 in place of an expert that as many earlier tokens have chosen as it takes."""
        if self.routing.capacity is None:
            return ids
        most = max(int(self.routing.capacity * ids.numel() / self.experts), 1)
        chosen = functional.one_hot(ids.flatten(), self.experts)
        place = (chosen.cumsum(0) * chosen).sum(-1).view_as(ids)
        return ids.masked_fill(place > most, -1)

    def _with_loss(self, weights: Tensor, scores: Tensor, ids: Tensor) -> Tensor:
        """The weights, which bring the gradient of aux · experts · Σ (share of the choices · summed probability)."""
        share = _tokens(ids, self.experts) / ids.numel()
        total = (scores / scores.sum(-1, keepdim=True)).sum(0)  # over tokens, like the loss that it joins
        return _Attached.apply(weights, self.routing.aux * self.experts * (share * total).sum(), self)  # type: ignore[no-untyped-call, no-any-return]


class _Attached(torch.autograd.Function):
    """Hands `weights` through; its backward pass starts that of `loss`, so no one has to carry it."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, loss: Tensor, router: Router) -> Tensor:
        ctx.router = router
        return weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient, gradient.new_full((), ctx.router.aux_scale, dtype=torch.float32), None


def _tokens(ids: Tensor, experts: int) -> Tensor:
    """Tokens of each expert, fp32."""
    flat = ids.flatten()
    count = torch.zeros(experts, dtype=torch.float32, device=ids.device)
    return count.scatter_add(0, flat, torch.ones_like(flat, dtype=count.dtype))
