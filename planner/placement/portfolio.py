"""The portfolio: EPLB's policies, balance alone, joint search; the choice falls on tokens not planned with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from planner.placement import eplb
from planner.placement.align import align
from planner.placement.anneal import Weights
from planner.placement.base import Answer, Expert, Grid, Ints, Metrics, Placement, Rates, Trace, even, half
from planner.placement.bounds import balance_bound, nodes_bound
from planner.placement.costs import migration, replica_sync
from planner.placement.evaluate import evaluate, measure
from planner.placement.joint import Tokens, balanced, joint, tokens_of
from planner.placement.replicas import apart
from planner.placement.split import poured, serve

Progress = Callable[[str, int, int], None]

WEIGHTS = (Weights(0.0, 1.0), Weights(0.0, 2.0), Weights(0.0, 4.0), Weights(0.5, 0.5), Weights(0.5, 1.0))
JUDGED = 6  # layers that the choice of the algorithm looks at
MOVES, MOST_MOVES = 1_500, 400_000  # trial swaps per slot, and at most
ALIKE = 0.01  # of time: of members that differ by less, the one of evenest loads is chosen where nothing has to move
NOISE = 0.02  # of an item's visits: a move that saves less is not worth a fetch
HEAT = 1.0
DEARER = (1.0, 4.0, 16.0, 64.0)  # moves of a warm search, until a budget suffices


@dataclass(frozen=True)
class Task:
    """What is asked: `slots` on `grid`, router `groups` (1: none), an `old` placement per layer or none.

    A migration is paid back over `horizon` passes through the layer and may move at most `budget` slots between nodes
    (None: any number); gradients of replicas are summed once per `micro_batches` passes. `per_batch`: the dispatcher
    splits each batch over the replicas by its own loads (see `split`), which metrics then show. `most` trial swaps a
    layer.
    """

    slots: int
    grid: Grid
    rates: Rates
    expert: Expert
    experts: int
    groups: int = 1
    old: tuple[Placement, ...] | None = None
    budget: int | None = None
    horizon: float = 1e5
    micro_batches: int = 64
    per_batch: bool = False
    seed: int = 0
    most: int = MOST_MOVES


def place(trace: Trace, task: Task, progress: Progress | None = None) -> list[Answer]:
    """One answer a layer, planned on one half of the trace's sequences and judged on the other."""
    plan, test = trace.halves(task.seed)
    say = progress or (lambda _what, _done, _of: None)
    algorithm = choose(plan, task, say)
    answers = []
    for layer in range(trace.ids.shape[0]):
        say("placing layers", layer, trace.ids.shape[0])
        tokens = tokens_of(plan.ids[layer], task.experts, task.seed)
        placement, name = members(tokens, task, layer, task.most)[algorithm](), algorithm
        if task.old and not _affordable(placement, task.old[layer], task):
            placement, name = task.old[layer], "old"
        answers.append(judged(placement, plan, test, task, layer, name))
    return answers


def choose(plan: Trace, task: Task, say: Progress) -> str:
    """The member with the least time on planning tokens that it has not seen, over some layers; never above EPLB's."""
    first = half(plan.seq if plan.seq is not None else np.arange(plan.tokens), task.seed + 1)
    fit, judge = plan.part(first), plan.part(~first)
    layers = np.unique(np.linspace(0, plan.ids.shape[0] - 1, JUDGED).astype(int))
    cost: dict[str, list[float]] = {}
    balance: dict[str, list[float]] = {}
    for step, layer in enumerate(layers):
        say("choosing an algorithm", step, layers.size)
        tokens = tokens_of(fit.ids[layer], task.experts, task.seed)
        for name, make in members(tokens, task, int(layer), task.most // 4).items():
            placement = make()
            found = metrics_of(placement, judge, task, int(layer))
            cost.setdefault(name, []).append(_cost(placement, found, task, int(layer)))
            balance.setdefault(name, []).append(found.balance)
    mean = {name: float(np.mean(values)) for name, values in cost.items()}
    fullest = {name: float(np.mean(values)) for name, values in balance.items()}
    known = [name for name in mean if name.startswith("eplb") and np.isfinite(mean[name])]
    alike = 1.0 if task.old else 1.0 + ALIKE
    limit = min([min(mean.values()) * alike, *(mean[name] for name in known)])
    return min((name for name in mean if mean[name] <= limit), key=fullest.__getitem__)


def members(tokens: Tokens, task: Task, layer: int, most: int) -> dict[str, Callable[[], Placement]]:
    """The portfolio for one layer by name; each makes its placement when called."""
    known = baselines(tokens, task)
    first = next(reversed(known.values()), None) or balanced(tokens, task.slots, task.grid)
    search = partial(joint, tokens, task.slots, task.grid, moves=min(MOVES * task.slots, most))
    search = partial(search, seed=task.seed, linked=task.per_batch)
    found: dict[str, Callable[[], Placement]] = {
        name: partial(_spread, made, tokens, task) for name, made in known.items()
    }
    found["balanced"] = partial(balanced, tokens, task.slots, task.grid)
    for w in WEIGHTS:
        found[f"joint {w.visits:g}/{w.load:g}"] = partial(search, first, w, heat=HEAT)
    if task.old is None:
        return found
    old = task.old[layer]
    for w in WEIGHTS:
        found[f"warm {w.visits:g}/{w.load:g}"] = partial(_warm, search, tokens, task, old, w)
    renamed: dict[str, Callable[[], Placement]] = {
        name: partial(_aligned, make, old, task) for name, make in found.items()
    }
    return {**renamed, "old": partial(_same, old)}


def _same(placement: Placement) -> Placement:
    return placement


def _spread(placement: Placement, tokens: Tokens, task: Task) -> Placement:
    """`placement` without two slots of one expert on a GPU, as EPLB may have them."""
    expert = placement.slot_expert
    load = (tokens.load / np.maximum(np.bincount(expert, minlength=task.experts), 1))[expert]
    return even(expert, apart(load, expert, placement.slot_gpu, task.grid.gpus))


def _warm(search: Callable[..., Placement], tokens: Tokens, task: Task, old: Placement, w: Weights) -> Placement:
    """Downhill from `old`; for a budget, moves are made dearer and then replicas left as they are until it suffices."""
    keep = _keep(tokens, task)
    for kept in (None, old.slot_expert) if old.slots == task.slots else (None,):
        for factor in DEARER:
            made = search(old, replace(w, keep=keep * factor), heat=0.0, replicas=kept)
            made = align(made, old, task.experts, task.grid)
            if _affordable(made, old, task):
                return made
    return old


def _affordable(placement: Placement, old: Placement, task: Task) -> bool:
    """Whether no more slots change nodes than the task's budget allows."""
    if task.budget is None:
        return True
    return migration(old, placement, task.grid, task.rates, task.expert).between_nodes <= task.budget


def _aligned(make: Callable[[], Placement], old: Placement, task: Task) -> Placement:
    return align(make(), old, task.experts, task.grid)


def _keep(tokens: Tokens, task: Task) -> float:
    """What moving an expert between nodes costs, in visited nodes of the planning tokens."""
    visit = task.expert.hidden * (task.rates.dispatch_bytes + task.rates.combine_bytes) / task.rates.nic
    fetch = task.expert.parameters * (task.expert.param_bytes + task.expert.optimizer_bytes) / task.rates.nic
    return fetch / task.horizon / visit + NOISE * tokens.ids.size / task.slots


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


def _cost(placement: Placement, found: Metrics, task: Task, layer: int) -> float:
    """Time of the layer [s] with its share of migration and of the replicas' gradients."""
    total = found.layer_s + replica_sync(placement, task.grid, task.rates, task.expert) / task.micro_batches
    if task.old is None:
        return total
    if not _affordable(placement, task.old[layer], task):
        return float("inf")
    moved = migration(task.old[layer], placement, task.grid, task.rates, task.expert)
    return total + moved.seconds / task.horizon


def judged(placement: Placement, plan: Trace, test: Trace, task: Task, layer: int, algorithm: str) -> Answer:
    """The answer that `placement` is for one layer, judged on `test`; baselines are planned on `plan`."""
    tokens = tokens_of(plan.ids[layer], task.experts, task.seed)
    replicas = np.bincount(placement.slot_expert, minlength=task.experts)
    per_node = int(np.bincount(placement.slot_gpu // task.grid.gpus_per_node).max())
    moved = None
    if task.old is not None:
        moved = migration(task.old[layer], placement, task.grid, task.rates, task.expert)
    static = replace(task, per_batch=False)
    test_load = np.bincount(test.ids[layer].ravel(), minlength=task.experts).astype(float)
    return Answer(
        layer=int(plan.layers[layer]) if plan.layers else layer,
        placement=placement,
        metrics=metrics_of(placement, test, task, layer),
        baseline={name: metrics_of(made, test, static, layer) for name, made in baselines(tokens, task).items()},
        bounds={
            "balance": balance_bound(test_load, task.slots, task.grid.gpus),
            "nodes_per_token": nodes_bound(_some(test.ids[layer]), task.experts, per_node, replicas),
        },
        algorithm=algorithm,
        moved=moved.moved if moved else 0,
        moved_between_nodes=moved.between_nodes if moved else 0,
    )


def _some(ids: Ints, most: int = 16_384) -> Ints:
    """Tokens enough for a bound: evenly spaced ones."""
    return ids if ids.shape[0] <= most else ids[np.linspace(0, ids.shape[0] - 1, most).astype(int)]
