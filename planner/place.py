"""Expert placement for a plan: the group, its rates from the plan's own cost formulas, and placement.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.collectives.base import members, path
from planner.cost.groups import groups
from planner.cost.layer import expert_linear_time
from planner.errors import Fault, InputError
from planner.layers.base import Linear
from planner.model import Layer
from planner.placement.base import Answer, Expert, Grid, Placement, Rates, Trace, check
from planner.placement.portfolio import place_halves
from planner.placement.series import Step
from planner.placement.task import Task
from planner.plan import Plan
from planner.plan_file import read_json
from planner.provenance import SCHEMA_VERSION, tool_version
from planner.setting import Routing, tokens

Json = dict[str, Any]


def grid_of(plan: Plan) -> Grid:
    """Nodes and GPUs per node of one expert-parallel group; InputError when the plan has none."""
    group = groups(plan.degrees, plan.setting.choices).ep
    if plan.setting.model.experts == 0 or int(group.size) == 1:
        raise InputError(Fault("PLAN.json", "the plan has no expert parallelism (ep > 1) to place experts for"))
    inside = int(members(group, plan.setting.tiers[0].size))
    return Grid(int(group.size) // inside, inside)


def expert_of(plan: Plan) -> Expert:
    """The routed expert of the plan's model."""
    down = next(
        part
        for kind in plan.setting.model.kinds
        for part in kind.parts
        if isinstance(part, Linear) and part.name == "experts_down"
    )
    state = plan.setting.optimizer.hidden.state + plan.setting.master
    return Expert(plan.setting.model.hidden, down.inputs, plan.setting.weight, state)


def rates_of(plan: Plan) -> Rates:
    """What a GPU of the plan achieves: the network of its group, and its experts' matrix multiplies forward."""
    setting, degrees = plan.setting, plan.degrees
    way = path(groups(degrees, setting.choices).ep, setting.layer_tiers)
    near, far = way.tiers[0], way.tiers[min(1, len(way.tiers) - 1)]
    alpha = float(way.launch + way.latency * np.log2(way.group.size * 1.0))
    kind = next(kind for kind in setting.model.kinds if _routed_parts(kind))
    parts = _routed_parts(kind)
    seconds = sum(float(expert_linear_time(part, setting, degrees)[0]) for part in parts)
    pairs = float(tokens(setting, degrees)) / int(degrees.tp)
    flop = sum(2.0 * pairs * part.active * part.inputs * part.outputs for part in parts)
    value = setting.value
    return Rates(far.bandwidth * far.efficiency, near.bandwidth * near.efficiency, alpha, flop / seconds, value, value)


def _routed_parts(kind: Layer) -> list[Linear]:
    """The matrices of the routed experts of a layer."""
    return [part for part in kind.parts if isinstance(part, Linear) and part.expert]


LAYERS, MOVES, SEED = 4, 40_000, 0  # of a quick placement for a price


def routed(plan: Plan, trace: Trace, name: str, known: dict[Grid, Routing]) -> Plan:
    """`plan` priced with imbalance and traffic of a quick placement for `trace`, which is called `name`.

    Unchanged without expert parallelism. `known` keeps what was found, for plans with groups alike. A trace of another
    topk than the model's knows loads only.
    """
    if plan.setting.model.experts == 0 or int(plan.degrees.ep) == 1:
        return plan
    grid = grid_of(plan)
    if grid not in known:
        known[grid] = _routing(plan, trace, grid)
    return replace(plan, setting=replace(plan.setting, routing=known[grid]), routing=name)


def _routing(plan: Plan, trace: Trace, grid: Grid) -> Routing:
    rates, expert = rates_of(plan), expert_of(plan)
    some = np.unique(np.linspace(0, trace.ids.shape[0] - 1, LAYERS).astype(int))
    seq = np.arange(trace.tokens) if trace.seq is None else trace.seq
    halves = replace(trace, ids=trace.ids[some], seq=seq, layers=()).halves(SEED)
    plan_half, test = (_dealt(part, grid.gpus) for part in halves)
    slots = -(-trace.experts // grid.gpus) * grid.gpus
    task = Task(slots, grid, rates, expert, trace.experts, seed=SEED, most=MOVES)
    found = [answer.metrics for answer in place_halves(plan_half, test, task)]
    imbalance = float(np.mean([each.balance for each in found]))
    if grid.nodes == 1 or trace.ids.shape[2] != plan.setting.model.topk:
        return Routing(imbalance)
    sent = float(np.mean([each.nic_bytes for each in found])) / (expert.hidden * rates.dispatch_bytes)
    return Routing(imbalance, sent * grid.gpus / test.tokens)


def _dealt(part: Trace, gpus: int) -> Trace:
    """The tokens in the order of their sequences on as many GPUs, each with as many of them."""
    src = np.empty(part.tokens, dtype=np.int64)
    order = np.arange(part.tokens) if part.seq is None else np.argsort(part.seq, kind="stable")
    src[order] = np.arange(part.tokens) * gpus // max(part.tokens, 1)
    return replace(part, src=src)


def to_json(answers: list[Answer], experts: int, grid: Grid, seconds: float) -> Json:
    """placement.json: EPLB's maps, shares, metrics on held-out tokens, baselines and bounds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "experts": experts,
        "nodes": grid.nodes,
        "gpus_per_node": grid.gpus_per_node,
        "slots": answers[0].placement.slots,
        "algorithm": answers[0].algorithm,
        "layers": [_layer(answer, experts) for answer in answers],
        "seconds": seconds,
    }


def _layer(answer: Answer, experts: int) -> Json:
    placement = answer.placement
    table = placement.table(experts)
    return {
        "layer": answer.layer,
        "slot_expert": placement.slot_expert.tolist(),
        "slot_gpu": placement.slot_gpu.tolist(),
        "share": placement.share.tolist(),
        "phy2log": placement.slot_expert.tolist(),
        "log2phy": table.tolist(),
        "replicas": (table >= 0).sum(axis=1).tolist(),
        "metrics": asdict(answer.metrics),
        "baseline": {name: asdict(metrics) for name, metrics in answer.baseline.items()},
        "bounds": answer.bounds,
        "algorithm": answer.algorithm,
        "moved": answer.moved,
        "moved_between_nodes": answer.moved_between_nodes,
    }


def steps_json(names: Sequence[Path], steps: Sequence[Step]) -> Json:
    """What was decided at each trace after the first; nothing where there is only one."""
    if not steps:
        return {}
    rows = [
        {
            "routing": str(name),
            **{key: getattr(step, key) for key in ("keep_s", "replan_s", "move_s", "moved")},
            "moved_between_nodes": step.between_nodes,
            "replanned": step.replanned,
        }
        for name, step in zip(names, steps, strict=True)
    ]
    return {"series": rows}


def _read(path: Path) -> Json:
    return read_json(path, "placement.json", "write one with `plan place --out FILE`")


def read_placements(path: Path, experts: int, grid: Grid, layers: int) -> tuple[Placement, ...]:
    """The placements in a placement.json; InputError when they don't fit the experts, the grid or the layers."""
    rows = _read(path).get("layers")
    if not isinstance(rows, list) or len(rows) != layers:
        raise InputError(Fault(f"{path}: layers", f"expected {layers} of them, as the trace has"))
    return _placements(path, rows, experts, grid)


def read_slots(path: Path, plan: Plan) -> tuple[Json, ...]:
    """The `layers` of a placement.json, for a run of `plan`; InputError with every way in which they don't fit it.

    A placement of other experts, or for another group of GPUs, has no meaning for the plan, so it is never mapped.
    """
    data, model, ranks = _read(path), plan.setting.model, int(plan.degrees.ep)
    nodes, each, layers = (data.get(name) for name in ("nodes", "gpus_per_node", "layers"))
    rows: list[Json] = layers if isinstance(layers, list) and all(isinstance(row, dict) for row in layers) else []
    gpus = nodes * each if isinstance(nodes, int) and isinstance(each, int) else None
    hint = "place the experts of the proxy that `plan run` writes to --out: plan place OUT/proxy.json"
    faults = []
    if ranks == 1:
        faults.append(Fault(f"{path}", f"{plan.degrees.world} ranks run the plan with ep 1: there is nothing to place"))
    if data.get("experts") != model.experts:
        faults.append(Fault(f"{path}: experts", f"the run has {model.experts}", data.get("experts"), hint))
    if gpus != ranks:
        faults.append(Fault(f"{path}: nodes, gpus_per_node", f"the run has {ranks} ranks of ep", gpus, hint))
    routed = [str(number) for number, kind in enumerate(model.order) if _routed_parts(model.kinds[kind])]
    numbers = [str(row.get("layer")) for row in rows]
    if not numbers or not set(numbers) <= set(routed):
        faults.append(
            Fault(f"{path}: layers", f"the run has experts in layers {', '.join(routed)}", ", ".join(numbers))
        )
    if faults:
        raise InputError(*faults)
    for number, placement in zip(numbers, _placements(path, rows, model.experts, Grid(ranks, 1)), strict=True):
        if np.unique(np.bincount(placement.slot_gpu, minlength=ranks)).size > 1:
            faults.append(Fault(f"{path}: layer {number}", "ranks run equally many slots each"))
    if faults:
        raise InputError(*faults)
    return tuple(rows)


def _placements(path: Path, rows: list[Json], experts: int, grid: Grid) -> tuple[Placement, ...]:
    """The placements in the `layers` of a placement.json; InputError when they don't fit the experts or the grid."""
    found = []
    for number, row in enumerate(rows):
        try:
            expert, gpu = (np.asarray(row[key], dtype=np.int64) for key in ("slot_expert", "slot_gpu"))
            share = np.asarray(row["share"], dtype=float)
        except (KeyError, TypeError, ValueError):
            fault = Fault(f"{path}: layers[{number}]", "expected lists slot_expert, slot_gpu and share")
            raise InputError(fault) from None
        placement = Placement(expert, gpu, share)
        try:
            check(placement, experts, grid)
        except InputError as error:
            where = f"{path}: layers[{number}]"
            raise InputError(*(Fault(f"{where}.{f.where}", f.expected, f.value) for f in error.faults)) from None
        found.append(placement)
    return tuple(found)


def slots_in(memory: float, expert: Expert, grid: Grid, layers: int) -> int:
    """Slots of one layer that `memory` [B] a GPU holds for the experts of `layers` layers, weights and optimizer."""
    each = expert.parameters * (expert.param_bytes + expert.optimizer_bytes)
    return int(memory // (each * layers)) * grid.gpus
