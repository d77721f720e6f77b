"""The portfolio: EPLB's policies, balance alone, joint search; the choice falls on tokens not planned with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from planner.placement import eplb
from planner.placement.align import align
from planner.placement.anneal import Weights
from planner.placement.base import Answer, Metrics, Placement, Trace, even
from planner.placement.bounds import bounds_of
from planner.placement.costs import migration, replica_sync
from planner.placement.evaluate import evaluate, measure
from planner.placement.joint import Tokens, balanced, joint, tokens_of
from planner.placement.replicas import apart
from planner.placement.split import poured, serve
from planner.placement.task import Task
from planner.placement.warm import warm

Progress = Callable[[str, int, int], None]

WEIGHTS = tuple(
    Weights(visits, load)
    for visits, load in ((0.0, 1.0), (0.0, 2.0), (0.0, 4.0), (0.0, 8.0), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0))
)
JUDGED = 6  # layers that the choice of the algorithm looks at
MOVES = 1_500  # trial swaps per slot
SLACK = 0.015  # of balance
ALIKE, FEWER = 0.005, 0.003  # of time: members that differ by less are told apart by balance, or by moves
HEAT = 1.0


class Trial(NamedTuple):
    """What a member costs on tokens that it has not seen: seconds a pass with replicas' gradients and moves, balance,
    slots moved between nodes, seconds of the layer alone.
    """

    cost: float
    balance: float
    moved: float
    layer: float


def place(trace: Trace, task: Task, progress: Progress | None = None) -> list[Answer]:
    """One answer a layer, planned on one half of the trace's sequences and judged on the other."""
    return place_halves(*trace.halves(task.seed), task, progress)


def place_halves(plan: Trace, test: Trace, task: Task, progress: Progress | None = None) -> list[Answer]:
    """As `place`, planned on `plan` and judged on `test`."""
    say = progress or (lambda _what, _done, _of: None)
    algorithm = choose(plan, task, say)
    answers = []
    for layer in range(plan.ids.shape[0]):
        say("placing layers", layer, plan.ids.shape[0])
        tokens = tokens_of(plan.ids[layer], task.experts, task.seed)
        placement, name = members(tokens, task, layer, task.most)[algorithm](), algorithm
        if task.old and not task.affords(placement, task.old[layer]):
            placement, name = task.old[layer], "old"
        answers.append(judged(placement, plan, test, task, layer, name))
    return answers


def choose(plan: Trace, task: Task, say: Progress) -> str:
    """The member of the portfolio for all layers, by trials on planning tokens alone.

    Each half of them judges what members make of the other, on some layers.
    """
    trials: dict[str, list[Trial]] = {}
    halves = plan.halves(task.seed + 1)
    layers = np.unique(np.linspace(0, plan.ids.shape[0] - 1, JUDGED).astype(int))
    for step, layer in enumerate(layers):
        say("choosing an algorithm", step, layers.size)
        for fit, judge in (halves, halves[::-1]):
            tokens, scale = tokens_of(fit.ids[layer], task.experts, task.seed), plan.tokens / judge.tokens
            for name, make in members(tokens, task, int(layer), task.most // 4).items():
                trials.setdefault(name, []).append(_trial(make(), judge, task, int(layer), scale))
    mean = {name: Trial(*np.mean(found, axis=0).tolist()) for name, found in trials.items()}
    return pick(mean, 2.0 * task.rates.alpha, warm=task.old is not None)


def pick(trials: dict[str, Trial], fixed: float, *, warm: bool) -> str:
    """The member to take, from the mean trial of each, of which `fixed` [s] cannot be saved: none slower than EPLB.

    Loads less even than those of the faster of these by more than `SLACK` count as that much more time: the fullest GPU
    also needs memory for them. Of members that cost about the same, the one with the evenest loads is taken, or from a
    placement in force that of fewest moves.
    """
    known = [name for name in trials if name.startswith("eplb") and np.isfinite(trials[name].cost)]
    even = trials[min(known, key=lambda name: trials[name].cost)].balance + SLACK if known else np.inf
    cost = {name: (trial.cost - fixed) * (1.0 + max(trial.balance - even, 0.0)) for name, trial in trials.items()}
    limit = min(cost.values()) * (1.0 + (FEWER if warm else ALIKE))
    pool = [name for name in trials if cost[name] <= limit]
    for other in known:
        rival = trials[other]
        pool = [name for name in pool if trials[name].cost <= rival.cost and trials[name].layer <= rival.layer]
    pool = pool or [min(known, key=lambda name: trials[name].layer)]
    return min(pool, key=lambda name: trials[name].moved if warm else trials[name].balance)


def members(tokens: Tokens, task: Task, layer: int, most: int) -> dict[str, Callable[[], Placement]]:
    """The portfolio for one layer by name; each makes its placement when called."""
    moves = min(MOVES * task.slots, most)
    found: dict[str, Callable[[], Placement]] = {}
    if task.old is None or task.allowed >= task.slots:
        found = _cold(tokens, task, moves)
    if task.old is None:
        return found
    old = task.old[layer]
    found = {"old": partial(_same, old), **{name: partial(_aligned, make, old, task) for name, make in found.items()}}
    for w in WEIGHTS:
        found[f"warm {w.visits:g}/{w.load:g}"] = partial(warm, tokens, task, old, w, moves)
    return found


def _cold(tokens: Tokens, task: Task, moves: int) -> dict[str, Callable[[], Placement]]:
    """The members that start from nothing."""
    known = baselines(tokens, task)
    first = next(reversed(known.values()), None) or balanced(tokens, task.slots, task.grid)
    found: dict[str, Callable[[], Placement]] = {
        name: partial(_spread, made, tokens, task) for name, made in known.items()
    }
    found["balanced"] = partial(balanced, tokens, task.slots, task.grid)
    for w in WEIGHTS if tokens.ids.shape[1] > 1 else ():
        found[f"joint {w.visits:g}/{w.load:g}"] = partial(
            joint, tokens, task.slots, task.grid, first, w, moves, task.seed, HEAT, linked=task.per_batch
        )
    return found


def _same(placement: Placement) -> Placement:
    return placement


def _spread(placement: Placement, tokens: Tokens, task: Task) -> Placement:
    """`placement` without two slots of one expert on a GPU, as EPLB may have them; inside the node where it can."""
    expert, gpu, each = placement.slot_expert, placement.slot_gpu.copy(), task.grid.gpus_per_node
    load = (tokens.load / np.maximum(np.bincount(expert, minlength=task.experts), 1))[expert]
    for node in range(task.grid.nodes):
        own = gpu // each == node
        gpu[own] = node * each + apart(load[own], expert[own], gpu[own] - node * each, each)
    return even(expert, apart(load, expert, gpu, task.grid.gpus))


def _aligned(make: Callable[[], Placement], old: Placement, task: Task) -> Placement:
    return align(make(), old, task.experts, task.grid)


def baselines(tokens: Tokens, task: Task) -> dict[str, Placement]:
    """EPLB's policies where their counts divide."""
    found = {}
    if eplb.global_fits(task.slots, task.grid):
        found["eplb_global"] = eplb.global_policy(tokens.load, task.slots, task.grid)
    if eplb.hierarchical_fits(task.experts, task.slots, task.grid, task.groups):
        found["eplb_hierarchical"] = eplb.hierarchical(tokens.load, task.slots, task.grid, task.groups)
    return found


def metrics_of(placement: Placement, trace: Trace, task: Task, layer: int) -> Metrics:
    """What a placement costs for one layer of a trace, in the way that the task's dispatcher serves."""
    ids, grid = trace.ids[layer], task.grid
    if not task.per_batch:
        return evaluate(placement, ids, trace.src, task.experts, grid, task.rates, task.expert)
    load = np.bincount(ids.ravel(), minlength=task.experts).astype(float)
    quota = poured(placement, load, grid.gpus)
    slots = serve(placement, ids, trace.src, quota, grid.gpus_per_node, grid.gpus)
    return measure(slots, placement, trace.src, grid, task.rates, task.expert)


def _trial(placement: Placement, judge: Trace, task: Task, layer: int, scale: float) -> Trial:
    """What `placement` costs on the tokens of `judge`, replicas' gradients and moves shared out over passes.

    A pass has `scale` times as many tokens.
    """
    found, fixed = metrics_of(placement, judge, task, layer), 2.0 * task.rates.alpha
    seconds = fixed + scale * (found.layer_s - fixed)
    cost = seconds + replica_sync(placement, task.grid, task.rates, task.expert) / task.micro_batches
    if task.old is None:
        return Trial(cost, found.balance, 0.0, seconds)
    moved = migration(task.old[layer], placement, task.grid, task.rates, task.expert)
    total = cost + moved.seconds / task.horizon if moved.between_nodes <= task.allowed else np.inf
    return Trial(total, found.balance, float(moved.between_nodes), seconds)


def judged(placement: Placement, plan: Trace, test: Trace, task: Task, layer: int, algorithm: str) -> Answer:
    """The answer that `placement` is for one layer, judged on `test`; baselines are planned on `plan`."""
    tokens = tokens_of(plan.ids[layer], task.experts, task.seed)
    moved = None
    if task.old is not None:
        moved = migration(task.old[layer], placement, task.grid, task.rates, task.expert)
    static = replace(task, per_batch=False)
    return Answer(
        layer=int(plan.layers[layer]) if plan.layers else layer,
        placement=placement,
        metrics=metrics_of(placement, test, task, layer),
        baseline={name: metrics_of(made, test, static, layer) for name, made in baselines(tokens, task).items()},
        bounds=bounds_of(placement, test.ids[layer], task.experts, task.grid, in_turn=not task.per_batch),
        algorithm=algorithm,
        moved=moved.moved if moved else 0,
        moved_between_nodes=moved.between_nodes if moved else 0,
    )
