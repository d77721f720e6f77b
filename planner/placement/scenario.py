"""Routing traces of a made-up router: how experts are loaded, which are chosen together, and how that changes.

score[t, e] = popularity[e] + STRENGTH · (topic of t) · (taste of e) + Gumbel noise; a token goes to its topk best.
Topics and tastes are directions in RANK dimensions: so few make experts cluster as in real traces (at STRENGTH 4 the
share of heavy pairs is that of DeepSeek-V2-Lite's experts, deepseek-ai/ESFT). Popularity is fitted to the wanted loads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from planner.errors import Fault, InputError
from planner.placement.base import Floats, Grid, Ints, Trace

RANK, STRENGTH = 12, 4.0
TOPICS = 4  # per expert
DOMAINS, CONCENTRATION = 8, 0.05  # kinds of text; how few topics each dwells on
FITTED, ROUNDS, PULL = 2048, 25, 0.7  # tokens and rounds that popularity is fitted with
CHUNK = 8192  # tokens scored at once
LONGEST = 64  # tokens of a sequence


@dataclass(frozen=True)
class Scenario:
    """`load` draws the wanted loads [experts] from a generator; `focus` share of tokens on the topics of their
    sequence's domain; `skew` share of sequences in the first domain; `turn` share of tastes and loads that is new
    against the same seed with `turn` 0.
    """

    load: Callable[[np.random.Generator, int], Floats]
    focus: float = 0.5
    skew: float = 1 / DOMAINS
    turn: float = 0.0


def _spread(cv: float) -> Callable[[np.random.Generator, int], Floats]:
    """Log-normal loads with this coefficient of variation."""
    return lambda rng, experts: rng.lognormal(0.0, np.sqrt(np.log1p(cv**2)), experts)


def _zipf(exponent: float) -> Callable[[np.random.Generator, int], Floats]:
    """Loads by Zipf's law, the ranks dealt out at random."""
    return lambda rng, experts: np.asarray((1.0 + rng.permutation(experts)) ** -exponent)


# A router with a bias against imbalance ends at 0.15; one domain of a pre-trained router shows 1.0 to 1.1.
SCENARIOS: Final = {
    "balanced": Scenario(_spread(0.15)),
    "zipf": Scenario(_zipf(0.6)),
    "domain": Scenario(_spread(1.05), focus=0.8, skew=0.5),
    "drift": Scenario(_zipf(0.6), turn=0.3),  # zipf of the same seed, some time later
}


@dataclass(frozen=True)
class Router:
    """`topk` of `experts`; of the `groups` (1: none) only the `kept` best are open to a token."""

    experts: int
    topk: int
    groups: int = 1
    kept: int = 1

    def choose(self, score: Floats) -> Ints:
        """Expert ids [tokens, topk] for `score` [tokens, experts], group scores as in DeepSeek-V3: the two best."""
        if self.groups > 1:
            grouped = score.reshape(-1, self.groups, self.experts // self.groups)
            worth = np.sort(grouped, axis=2)[:, :, -2:].sum(axis=2)
            closed = np.argsort(worth, axis=1)[:, : self.groups - self.kept]
            score = score.copy()
            np.put_along_axis(score.reshape(grouped.shape), closed[:, :, None], -np.inf, axis=1)
        return np.asarray(np.argpartition(-score, self.topk - 1, axis=1)[:, : self.topk])


def make(name: str, router: Router, grid: Grid, layers: int, tokens: int, seed: int = 0) -> Trace:
    """A trace of about `tokens` tokens by the scenario `name`, as many from each GPU; InputError for no such router."""
    _check(router)
    scenario = SCENARIOS[name]
    each = max(tokens // grid.gpus, 4)
    length = min(LONGEST, each // 4)
    seq = np.repeat(np.arange(grid.gpus * (each // length)), length)
    rng = np.random.default_rng([seed, round(1000 * scenario.turn)])
    topic = _topics(scenario, seq, TOPICS * router.experts, seed, rng)
    ids = np.stack([_layer(scenario, router, topic, seed, layer, rng) for layer in range(layers)])
    return Trace(ids, seq % grid.gpus, router.experts, seq, tuple(range(layers)))


def _check(router: Router) -> None:
    faults = []
    if not 1 <= router.kept <= router.groups:
        faults.append(Fault("--topk-groups", f"expected 1 to {router.groups}, the groups there are", router.kept))
    elif router.topk > router.kept * (router.experts // router.groups):
        room = router.kept * (router.experts // router.groups)
        faults.append(Fault("--topk", f"expected at most the {room} experts open to a token", router.topk))
    if router.groups > 1 and router.experts // router.groups < 2:
        faults.append(Fault("--groups", "expected two experts in a group or more", router.groups))
    if faults:
        raise InputError(*faults)


def _topics(scenario: Scenario, seq: Ints, topics: int, seed: int, rng: np.random.Generator) -> Ints:
    """The topic of each token: by its sequence's domain, or by a Zipf law common to all."""
    fixed = np.random.default_rng([seed, topics])
    common = (1.0 + fixed.permutation(topics)) ** -0.7
    mixes = np.vstack([fixed.dirichlet(np.full(topics, CONCENTRATION), DOMAINS), common / common.sum()])
    rest = (1.0 - scenario.skew) / (DOMAINS - 1)
    domain = rng.choice(DOMAINS, int(seq[-1]) + 1, p=[scenario.skew] + [rest] * (DOMAINS - 1))[seq]
    domain = np.where(rng.random(seq.size) < scenario.focus, domain, DOMAINS)
    topic = np.empty(seq.size, dtype=np.int64)
    for number, mix in enumerate(mixes):
        own = domain == number
        topic[own] = rng.choice(topics, int(own.sum()), p=mix)
    return topic


def _layer(scenario: Scenario, router: Router, topic: Ints, seed: int, layer: int, rng: np.random.Generator) -> Ints:
    """Expert ids [tokens, topk] of one layer."""
    fixed, fresh = np.random.default_rng([seed, layer, 0]), np.random.default_rng([seed, layer, 1])
    turn = scenario.turn

    def turned(draw: Callable[[np.random.Generator], Floats]) -> Floats:
        return np.asarray(np.sqrt(1.0 - turn) * draw(fixed) + np.sqrt(turn) * draw(fresh))

    direction = _unit(fixed, TOPICS * router.experts)
    taste = turned(lambda g: _unit(g, router.experts))
    wanted = np.exp(turned(lambda g: np.log(scenario.load(g, router.experts))))
    liking = (STRENGTH * np.sqrt(RANK) * direction @ taste.T).astype(np.float32)
    popularity = _fitted(router, liking, topic, wanted / wanted.mean(), rng)
    parts = []
    for start in range(0, topic.size, CHUNK):
        score = liking[topic[start : start + CHUNK]] + popularity
        parts.append(router.choose(score + rng.gumbel(size=score.shape).astype(np.float32)))
    return np.concatenate(parts)


def _unit(rng: np.random.Generator, number: int) -> Floats:
    """Random directions [number, RANK]."""
    drawn = rng.normal(size=(number, RANK))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def _fitted(router: Router, liking: Floats, topic: Ints, wanted: Floats, rng: np.random.Generator) -> Floats:
    """The popularity [experts] that gives loads in proportion to `wanted`; no expert gets more than every token."""
    some = topic[rng.choice(topic.size, min(topic.size, FITTED), replace=False)]
    score = liking[some] + rng.gumbel(size=(some.size, router.experts)).astype(np.float32)
    most = 0.9 * router.experts / router.topk
    wanted = np.clip(wanted, 0.02, most)
    popularity = np.zeros(router.experts, dtype=np.float32)
    for _ in range(ROUNDS):
        load = np.bincount(router.choose(score + popularity).ravel(), minlength=router.experts)
        ratio = (load / load.mean() + 0.02) / (wanted / wanted.mean() + 0.02)
        popularity -= (PULL * np.log(ratio)).astype(np.float32)
    return np.asarray(popularity)
