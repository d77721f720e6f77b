"""The proxy of a plan: the same training on a few ranks, small enough for this machine, and what it gave up.

What makes the plan what it is stays: which axes are above 1 (as far as the ranks allow, see `executor.axes`), the rank
order, the schedule and its share of bubble, recompute, ZeRO, and the kinds of layers in proportion. Sizes shrink.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from executor.axes import fold
from executor.kept import given_up, kept
from executor.shrink import Size, Table, shrink
from hwprofiles import load
from planner import schedules, stack
from planner.errors import Fault, InputError
from planner.estimate import estimate
from planner.families.table import model_of_table
from planner.layout import chain, chunks
from planner.model import Model
from planner.plan import Plan, strategy_json
from planner.rules import broken
from planner.setting import Setting, micro_batch_count
from planner.strategy import ORDERS, Choices, Degrees, Workload

HERE = {"cpu": ("cpu-loopback", "torch-eager")}
"""Cluster and stack that price what runs on a device of this machine; elsewhere those of the plan."""
MOST_MICRO_BATCHES = 8
MOST_MICRO_BATCH = 2
LEAST_HIDDEN = 16
SPARE_LAYERS = 12
PLAIN = "1f1b"
DEEPEST = 4  # chunks of a rank


@dataclass(frozen=True)
class Proxy:
    """`plan` is legal and small; `table` is its model as the table of a TOML; `large` the plan it stands for."""

    plan: Plan
    table: Table
    large: Plan
    kept: tuple[str, ...]
    given_up: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Strategy, model and workload of both, and the sentences."""
        return {
            "large": _outline(self.large),
            "small": _outline(self.plan),
            "kept": list(self.kept),
            "given_up": list(self.given_up),
        }


@dataclass(frozen=True)
class Like:
    """An earlier proxy to go on with, on any layout: its model's table and its workload."""

    table: Table
    seq_len: int
    global_batch: int


def proxy(
    plan: Plan,
    ranks: int,
    *,
    device: str = "cpu",
    size: Size | None = None,
    memory: float | None = None,
    like: Like | None = None,
) -> Proxy:
    """The proxy of `plan` on `ranks` ranks of `device`; hidden halves until the peak fits `memory` [B per rank].

    `like` gives model and workload in place of `size`. Raises InputError when even the smallest does not fit, the
    model has a layer that can't be shrunk, or `like` is not legal on these ranks.
    """
    size = size or Size()
    degrees = fold(plan, ranks)
    while True:
        small, table = _small(plan, degrees, size, device, like)
        small.check()
        peak = float(estimate(small.setting, small.degrees).peak)
        if memory is None or peak <= memory:
            break
        if like or size.hidden // 2 < LEAST_HIDDEN:
            expected = f"the smallest proxy needs {peak:,.0f} B a rank; free memory or use fewer ranks"
            raise InputError(Fault("memory", expected, f"{memory:,.0f} B a rank"))
        size = replace(size, hidden=size.hidden // 2)
    return Proxy(small, table, plan, tuple(kept(plan, small)), tuple(given_up(plan, small)))


METHODS = ("master", "prune", "quantize", "messages", "distill_from", "teacher_gpus", "teacher_topk")
"""Choices that a proxy leaves out: it shows the parallel plan, `plan train` the methods."""


def _small(plan: Plan, degrees: Degrees, size: Size, device: str, like: Like | None) -> tuple[Plan, Table]:
    large = plan.setting
    dp, micro_batch = int(degrees.dp), min(int(plan.degrees.micro_batch), MOST_MICRO_BATCH)
    if like and like.global_batch % (dp * micro_batch):
        micro_batch = 1
    exact = like.global_batch // (dp * micro_batch) if like else None
    degrees, choices, micro_batches = _schedule(plan, degrees, exact)
    seq_len = like.seq_len if like else _fitted(size, degrees).seq_len
    table = like.table if like else _table(large.model, _fitted(size, degrees), large.workload.seq_len, degrees)
    if table is None:
        degrees, choices = replace(degrees, vpp=1), replace(choices, schedule=PLAIN)
        table = shrink(large.model, _fitted(size, degrees), large.workload.seq_len)
    batch = like.global_batch if like else dp * micro_batch * micro_batches
    degrees = replace(degrees, micro_batch=micro_batch, replicas=_replicas(plan, degrees))
    steps = max(large.workload.tokens / large.workload.tokens_per_step, 1.0)
    workload = Workload(seq_len, batch, steps * seq_len * batch)
    cluster, framework = HERE.get(device, (plan.cluster_name, large.stack.name))
    choices = replace(
        choices,
        precision=_precision(large.choices.precision, device),
        optimizer=choices.optimizer.removesuffix("-bf16"),  # torch keeps the moments in the type of the weights
        **{name: getattr(Choices(), name) for name in METHODS},
    )
    model = model_of_table(table, "proxy", table["name"])
    setting = Setting(model, load.cluster(cluster, int(degrees.world)), workload, choices, stack.load(framework))
    small = Plan(table["name"], cluster, setting, degrees)
    if any(fault.where == "strategy.order" for fault in broken(small.case)):
        small = replace(small, setting=replace(setting, choices=replace(choices, order=ORDERS[0])))
    return small, table


def _fitted(size: Size, degrees: Degrees) -> Size:
    """The size with what the degrees divide made divisible; one of two ways never changes the model."""
    cut = int(degrees.tp * degrees.cp)
    step = int(degrees.tp * (2 * degrees.cp if degrees.cp > 1 else 1))
    return replace(
        size,
        layers=max(size.layers, int(degrees.pp * degrees.vpp)),
        heads=math.lcm(size.heads, cut),
        seq_len=-(-size.seq_len // step) * step,
        cut=math.lcm(2, cut, int(degrees.etp)),
        ep=math.lcm(2, int(degrees.ep)),
    )


def _schedule(plan: Plan, degrees: Degrees, exact: int | None) -> tuple[Degrees, Choices, int]:
    """Schedule, chunks and micro-batches: the plan's where its rules allow, else 1F1B; the bubble's share stays.

    `exact` micro-batches when the batch is given.
    """
    choices, large = plan.setting.choices, plan.degrees
    count, pp = int(micro_batch_count(plan.setting, large)), int(degrees.pp)
    wanted = exact or min(count, 2)
    if exact is None and large.pp > 1 and pp > 1:
        share = round(count * (pp - 1) / (int(large.pp) - 1))
        wanted = min(max(share, pp), max(MOST_MICRO_BATCHES, pp))
    near = (wanted,) if exact else (*range(wanted, 0, -1), *range(wanted + 1, wanted + 2 * pp + 1))
    kind = schedules.get(choices.schedule)
    for vpp in range(min(int(large.vpp), 2), DEEPEST + 1):
        for micro_batches in near:
            if not kind.broken(pp, vpp, micro_batches):
                return replace(degrees, vpp=vpp), choices, micro_batches
    return degrees, replace(choices, schedule=PLAIN), wanted


def _table(model: Model, size: Size, seq_len: int, degrees: Degrees) -> Table | None:
    """The shrunk model, with as many layers more as it takes for its pipeline to be cut where it can be."""
    for layers in range(size.layers, size.layers + SPARE_LAYERS):
        table = shrink(model, replace(size, layers=layers), seq_len)
        if _stands(table, size.seq_len, int(degrees.pp), int(degrees.vpp)):
            return table
    return None


def _stands(table: Table, seq_len: int, pp: int, vpp: int) -> bool:
    """Whether the executor can run the chunks: none begins with a layer that reads the keys of the one before, and
    no rank has two of the chunks that hold the embedding (the first, those of prediction modules and of a tied head).
    """
    model = model_of_table(table, "proxy", table["name"])
    shared = {number for number, own in enumerate(table["kinds"].values()) if own["reach"] == "shared_kv"}
    columns, embedding = chain(model), len(model.kinds)
    holders = {embedding, embedding + 2, *((embedding + 1,) if model.tied else ())}
    found: list[int] = []
    for chunk, held in enumerate(chunks(model, seq_len, pp, vpp)):
        content = [columns[position] for position in held]
        if content[0] in shared:
            return False
        if holders & set(content):
            found.append(chunk % pp)
    return pp == 1 or len(found) == len(set(found))


def _replicas(plan: Plan, degrees: Degrees) -> int:
    """Hybrid shards stay hybrid where both the copies and the shards can be 2."""
    extents = [int(degrees.dp * degrees.cp)]
    if plan.setting.model.experts:
        extents.append(int(degrees.edp))
    return 2 if plan.degrees.replicas > 1 and all(extent % 2 == 0 for extent in extents) and extents[0] > 2 else 1


def _precision(large: str, device: str) -> str:
    """CPUs train in fp32, since most emulate the rest; fp8 and fp4 have no twins, so they become bf16."""
    if device == "cpu":
        return "fp32"
    return large if large in ("bf16", "fp32") else "bf16"


def _outline(plan: Plan) -> dict[str, Any]:
    model, workload = plan.setting.model, plan.setting.workload
    return {
        "model": {
            "name": model.name,
            "parameters": model.total_parameters(),
            "hidden": model.hidden,
            "layers": model.layers,
            "chain": len(chain(model)),
            "experts": model.experts,
            "topk": model.topk,
        },
        "cluster": plan.cluster_name,
        "workload": {"seq_len": workload.seq_len, "global_batch": workload.global_batch},
        "strategy": strategy_json(plan.setting, plan.degrees),
    }
