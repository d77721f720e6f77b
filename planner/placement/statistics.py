"""What a trace and its placement look like: loads, drift, co-activation, traffic before and after, moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from planner.placement.base import Answer, Floats, Grid, Ints, Placement, Trace, even
from planner.placement.evaluate import serve
from planner.placement.joint import tokens_of
from planner.placement.portfolio import baselines
from planner.placement.split import poured
from planner.placement.split import serve as serve_batch
from planner.placement.task import Task

SHOWN, SEEN = 256, 32_768  # experts in the picture of co-activation, the busiest; tokens that it is counted from
BLOCKS = 256  # stretches of a trace without sequences
SHUFFLES = 8  # that say how far halves of one trace are apart by chance
DIGITS = 4

Json = dict[str, Any]


def statistics(trace: Trace, answers: Sequence[Answer], task: Task) -> Json:
    """Everything that the report of a placement draws, from the held-out half; details of one typical layer."""
    plan, test = trace.halves(task.seed)
    shown = _typical(answers)
    ids, after = test.ids[shown], answers[shown].placement
    name, before = _before(plan, task, shown)
    slots = [_served(placement, ids, test.src, task) for placement in (before, after)]
    gpus = [placement.slot_gpu[slot] for placement, slot in zip((before, after), slots, strict=True)]
    load = np.bincount(ids.ravel(), minlength=task.experts)
    return {
        "layer": answers[shown].layer,
        "tokens": test.tokens,
        "before": name,
        "noise_floor": noise_floor(test.tokens * ids.shape[1], task.grid.gpus),
        "expert_load": _rounded(load / load.mean()),
        "replicas": np.bincount(after.slot_expert, minlength=task.experts).tolist(),
        "gpu_load": dict(zip(("before", "after"), (_load(gpu, task.grid) for gpu in gpus), strict=True)),
        "node_traffic": dict(
            zip(("before", "after"), (traffic(gpu, test.src, task.grid).tolist() for gpu in gpus), strict=True)
        ),
        "coactivation": _coactivation(ids, after, task),
        "layers": [_layer(trace, layer, answer.layer) for layer, answer in enumerate(answers)],
        "migration": migrations(task.old[shown], after, task.grid).tolist() if task.old else None,
    }


def noise_floor(choices: int, gpus: int) -> float:
    """The balance that chance alone gives `gpus` GPUs of equal expected load among `choices` expert choices.

    The largest of P Gaussian deviations is about sqrt(2 ln P) of them; a GPU's load has sqrt(choices / P) of it.
    """
    return float(1.0 + np.sqrt(2.0 * np.log(gpus) / (choices / gpus)))


def traffic(gpu: Ints, src: Ints, grid: Grid) -> Ints:
    """Copies of tokens sent from node to node [nodes, nodes], one for each node that a token visits.

    `gpu` [tokens, topk] serves the choices of tokens from GPUs `src` [tokens].
    """
    node, home = gpu // grid.gpus_per_node, src // grid.gpus_per_node
    found = np.zeros((grid.nodes, grid.nodes), dtype=np.int64)
    for target in range(grid.nodes):
        found[:, target] = np.bincount(home[(node == target).any(axis=1)], minlength=grid.nodes)
    return found


def migrations(old: Placement, new: Placement, grid: Grid) -> Ints:
    """Experts that GPUs of one node fetch from another, or from a neighbour (the diagonal) [from, to].

    A GPU fetches what it lacks from its own node if it can, else from the first node that holds it.
    """
    each = grid.gpus_per_node
    held = set(zip(old.slot_expert.tolist(), old.slot_gpu.tolist(), strict=True))
    nodes: dict[int, list[int]] = {}
    for expert, gpu in sorted(held):
        nodes.setdefault(expert, []).append(gpu // each)
    found = np.zeros((grid.nodes, grid.nodes), dtype=np.int64)
    for expert, gpu in set(zip(new.slot_expert.tolist(), new.slot_gpu.tolist(), strict=True)) - held:
        home = gpu // each
        found[home if home in nodes[expert] else nodes[expert][0], home] += 1
    return found


def drift(ids: Ints, seq: Ints | None, experts: int) -> tuple[float, float]:
    """How far apart the loads of the first and second half of a trace are, and of halves by chance, both 0 to 1.

    Total variation distance: the share of tokens that other experts get. Halves by chance share out whole sequences.
    """
    tokens = ids.shape[0]
    place = np.arange(tokens) * min(BLOCKS, tokens) // tokens if seq is None else np.unique(seq, return_inverse=True)[1]
    block = np.repeat(place, ids.shape[1]) * experts + ids.ravel()
    load = np.bincount(block, minlength=(int(place.max()) + 1) * experts).reshape(-1, experts)
    rng = np.random.default_rng(0)
    chance = [_apart(load[rng.permutation(len(load))]) for _ in range(SHUFFLES)]
    return _apart(load), float(np.mean(chance))


def _apart(load: Ints) -> float:
    """Total variation distance between the first and the second half of the rows of `load`."""
    middle = len(load) // 2
    first, second = (part.sum(axis=0) / max(part.sum(), 1) for part in (load[:middle], load[middle:]))
    return 0.5 * float(np.abs(first - second).sum())


def _typical(answers: Sequence[Answer]) -> int:
    """The layer of median time."""
    order = np.argsort([answer.metrics.layer_s for answer in answers], kind="stable")
    return int(order[len(answers) // 2])


def _before(plan: Trace, task: Task, layer: int) -> tuple[str, Placement]:
    """What the answer is held against: the placement in force, EPLB's, or experts in order."""
    if task.old:
        return "placement in force", task.old[layer]
    known = baselines(tokens_of(plan.ids[layer], task.experts, task.seed), task)
    if known:
        name, placement = next(reversed(known.items()))
        return name.replace("eplb_", "EPLB "), placement
    return "experts in order", even(np.arange(task.experts), task.grid.slots(task.experts))


def _served(placement: Placement, ids: Ints, src: Ints, task: Task) -> Ints:
    """The slots [tokens, topk] that serve, in the way of the task's dispatcher."""
    if not task.per_batch:
        return serve(placement, ids, task.experts)
    quota = poured(placement, np.bincount(ids.ravel(), minlength=task.experts).astype(float), task.grid.gpus)
    return serve_batch(placement, ids, src, quota, task.grid.gpus_per_node, task.grid.gpus)


def _load(gpu: Ints, grid: Grid) -> list[float]:
    """Load of each GPU over the mean."""
    load = np.bincount(gpu.ravel(), minlength=grid.gpus)
    return _rounded(load / load.mean())


def _coactivation(ids: Ints, placement: Placement, task: Task) -> Json:
    """How much oftener than by chance two experts serve one token, experts in the order of their first node."""
    ids = ids[:: -(-ids.shape[0] // SEEN)]
    load = np.bincount(ids.ravel(), minlength=task.experts)
    node = placement.slot_gpu[placement.table(task.experts)[:, 0]] // task.grid.gpus_per_node
    chosen = np.sort(np.argsort(-load, kind="stable")[:SHOWN])
    chosen = chosen[np.argsort(node[chosen], kind="stable")]
    visits = np.zeros((ids.shape[0], task.experts), dtype=np.float32)
    np.put_along_axis(visits, ids, 1.0, axis=1)
    visits = visits[:, chosen]
    together = visits.T @ visits
    lift = together * ids.shape[0] / np.maximum(np.outer(load[chosen], load[chosen]), 1.0)
    np.fill_diagonal(lift, 0.0)
    return {"experts": chosen.tolist(), "node": node[chosen].tolist(), "lift": [_rounded(row, 2) for row in lift]}


def _layer(trace: Trace, layer: int, number: int) -> Json:
    """Skew and drift of one layer's loads."""
    load = np.bincount(trace.ids[layer].ravel(), minlength=trace.experts)
    moved, chance = drift(trace.ids[layer], trace.seq, trace.experts)
    return {
        "layer": number,
        "largest": round(float(load.max() / load.mean()), DIGITS),
        "cv": round(float(load.std() / load.mean()), DIGITS),
        "drift": round(moved, DIGITS),
        "chance": round(chance, DIGITS),
    }


def _rounded(values: Floats | Ints, digits: int = DIGITS) -> list[float]:
    return [round(value, digits) for value in np.asarray(values, dtype=float).tolist()]
