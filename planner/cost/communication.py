"""Exposed communication inside a layer: tensor, context and expert parallelism, per micro-batch."""

from __future__ import annotations

from functools import partial

from planner.collectives.all_reduce import all_reduce
from planner.collectives.all_to_all import all_to_all
from planner.collectives.base import Path, path
from planner.collectives.point_to_point import point_to_point
from planner.collectives.ring import all_gather, reduce_scatter
from planner.cost.groups import groups
from planner.cost.messages import boundary, key_value
from planner.cost.overlap import exposed
from planner.formula import Num, formula
from planner.layers.base import Core, Cut, Linear
from planner.model import Layer
from planner.setting import Setting, tokens
from planner.strategy import Degrees


@formula(
    unit="s", source="Korthikanti 2022: all-gather into each column-cut, reduce-scatter out of each row-cut multiply"
)
def tensor_time(layer: Layer, setting: Setting, degrees: Degrees, passes: float) -> Num:
    """Exposed tensor-parallel traffic; `passes` is 2 (forward, backward), 3 with full recompute."""
    axes = groups(degrees, setting.choices)
    ways = {"tp": path(axes.tp, setting.layer_tiers), "etp": path(axes.etp, setting.layer_tiers)}
    total: Num = 0.0
    for part in layer.parts:
        crossed = boundary(part, setting, degrees)
        if crossed is not None:
            shared = setting.choices.sequence_parallel or crossed.axis == "etp"
            total = total + _pair(crossed.volume, ways[crossed.axis], setting, shared=shared)
    return 0.5 * passes * total * (1.0 - setting.stack.tensor_overlap)


def _pair(volume: Num, way: Path, setting: Setting, *, shared: bool) -> Num:
    """The forward and the backward collective at one boundary: gather and scatter mirror each other."""
    if shared:
        scatter = all_reduce if setting.stack.scatter_by_reduce else reduce_scatter
        return all_gather(volume, way) + scatter(volume, way)
    return all_reduce(volume, way)


@formula(unit="s", source="Liu 2023 (ring attention): keys and values pass cp - 1 times, with their gradients backward")
def context_time(layer: Layer, setting: Setting, degrees: Degrees, core: Num, core_backward: Num) -> Num:
    """Exposed exchange of keys and values: what exceeds the attention beside it, and the share of the rest."""
    ring = path(groups(degrees, setting.choices).cp, setting.layer_tiers)
    share = setting.stack.context_overlap
    total: Num = 0.0
    for part in layer.parts:
        if isinstance(part, Core):
            volume = key_value(part, setting, degrees)
            ahead = (degrees.cp - 1) * point_to_point(volume, ring)
            behind = (degrees.cp - 1) * point_to_point(2.0 * volume, ring)
            total = total + exposed(ahead, core, share) + exposed(behind, core_backward, share)
    return total


@formula(
    unit="s",
    source="DeepSeek-V3 sec. 3.2, 3.3: dispatch and combine, forward and backward; dispatch in fp8 where chosen",
)
def expert_time(layer: Layer, setting: Setting, degrees: Degrees, passes: float, window: Num) -> Num:
    """Exposed all-to-all of an expert layer; 0 where there are no experts."""
    routed = [p for p in layer.parts if isinstance(p, Linear) and p.expert and p.cut is Cut.COLUMN]
    if not routed:
        return 0.0
    way = path(groups(degrees, setting.choices).ep, setting.layer_tiers)
    rows = tokens(setting, degrees) / degrees.tp
    stack, width = setting.stack, routed[0].inputs
    travel = partial(all_to_all, rows, topk=float(routed[0].active), way=way, copies=setting.routing.copies)
    back = travel(setting.value * width, merged=stack.merged_dispatch)
    ahead = travel(setting.dispatched * width, merged=stack.merged_dispatch) if setting.lean else back
    gap = 0.0 if stack.merged_dispatch else stack.dispatch_gap * setting.host_pace
    waits = 0.5 * passes * gap * (degrees.ep > 1)
    return exposed(passes * (ahead + back) + waits, window, stack.expert_overlap)
