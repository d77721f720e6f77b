"""Expert placement for a plan: the group, its rates from the plan's own cost formulas, and placement.json."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.collectives.base import members
from planner.cost.groups import groups
from planner.errors import Fault, InputError
from planner.layers.base import Linear
from planner.placement.base import Answer, Expert, Grid, Placement, Rates, Trace, check
from planner.placement.portfolio import Task, place
from planner.plan import Plan
from planner.plan_file import read_json
from planner.precision import PRECISIONS
from planner.provenance import SCHEMA_VERSION, tool_version
from planner.setting import Routing

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
    state = plan.setting.optimizer.state
    return Expert(plan.setting.model.hidden, down.inputs, plan.setting.weight, state)


def rates_of(plan: Plan) -> Rates:
    """What one GPU of the plan achieves on the network and in the expert GEMM."""
    setting = plan.setting
    near, far = setting.tiers[0], setting.tiers[min(1, len(setting.tiers) - 1)]
    kind = PRECISIONS[setting.choices.precision]
    flops = setting.gpu.peak[kind.peak] * setting.gpu.matmul[kind.name].efficiency
    value = setting.value
    return Rates(far.bandwidth * far.efficiency, near.bandwidth * near.efficiency, far.launch, flops, value, value)


LAYERS, MOVES = 4, 40_000  # what a quick placement for a price looks at


def routed(plan: Plan, trace: Trace, groups: int = 1) -> Plan:
    """`plan` priced with the imbalance and the traffic of a quick placement; unchanged without expert parallelism.

    Sequences of the trace (tokens where there are none) are dealt to the ranks of the group in turn.
    """
    if plan.setting.model.experts == 0 or int(plan.degrees.ep) == 1:
        return plan
    grid, rates, expert = grid_of(plan), rates_of(plan), expert_of(plan)
    some = np.unique(np.linspace(0, trace.ids.shape[0] - 1, LAYERS).astype(int))
    order = np.unique(trace.seq, return_inverse=True)[1] if trace.seq is not None else np.arange(trace.tokens)
    dealt = replace(trace, ids=trace.ids[some], src=order % grid.gpus, layers=())
    slots = -(-trace.experts // grid.gpus) * grid.gpus
    task = Task(slots, grid, rates, expert, trace.experts, groups, most=MOVES)
    found = [answer.metrics for answer in place(dealt, task)]
    imbalance = float(np.mean([each.balance for each in found]))
    sent = float(np.mean([each.nic_bytes for each in found])) / (expert.hidden * rates.dispatch_bytes)
    judged = dealt.halves(task.seed)[1].tokens / grid.gpus
    routing = Routing(imbalance, sent / judged if grid.nodes > 1 else None)
    return replace(plan, setting=replace(plan.setting, routing=routing))


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


def read_placements(path: Path, experts: int, grid: Grid, layers: int) -> tuple[Placement, ...]:
    """The placements in a placement.json; InputError when they don't fit the experts, the grid or the layers."""
    data = read_json(path)
    rows = data.get("layers")
    if not isinstance(rows, list) or len(rows) != layers:
        raise InputError(Fault(f"{path}: layers", f"expected {layers} of them, as the trace has"))
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
