"""The plan in sentences, and the constraint that binds it."""

from __future__ import annotations

from dataclasses import replace

from hwprofiles import quantity
from planner.cuts import by_framework
from planner.estimate import estimate, evaluate, units
from planner.explain.waterfall import LOSSES
from planner.plan import Json, Plan
from planner.rules import broken
from planner.setting import Routing

PERCENT = 100.0
WORTH_SAYING = 0.01
UNSEEN = {"family": "this family of software stacks", "generation": "this GPU generation", "size": "so many GPUs"}


def words(plan: Plan, priced: Json) -> list[str]:
    """What each axis does, in the order of the network from near to far."""
    s, model = priced["strategy"], plan.setting.model
    tier = plan.setting.cluster.tiers[0]
    sequences = f"{s['micro_batch']} sequence{'s' * (s['micro_batch'] > 1)}"
    copies = f"{s['world']:,} GPUs run {s['dp']:,} copies of a pipeline of {s['pp']} stages"
    lines = [f"{copies}; each step takes {s['micro_batches']:,} micro-batches of {sequences} per copy."]
    if s["pp"] > 1:
        split = f", each stage in {s['vpp']} chunks that take turns" if s["vpp"] > 1 else ""
        lines.append(f"The {model.layers} layers are cut into {s['pp']} stages ({s['schedule']} schedule){split}.")
        lines += _frameworks_cut(plan, priced["step_time_s"])
    if s["tp"] > 1:
        where = f"of one {tier.name} domain" if s["tp"] <= tier.size else f"across {tier.name} domains"
        lines.append(f"Tensor parallelism shares each matrix among {s['tp']} GPUs {where}.")
    if s["cp"] > 1:
        lines.append(f"Context parallelism splits every sequence over {s['cp']} GPUs, which exchange keys and values.")
    if s["ep"] > 1:
        cut = f", every expert cut {s['etp']} ways" if s["etp"] > 1 else ""
        lines.append(
            f"The {model.experts} experts of a layer are spread over {s['ep']} GPUs, {model.experts // s['ep']} on each"
            f"{cut}; {s['edp']:,} copies of them share gradients."
        )
    if plan.routing:
        lines.append(_routing(plan, priced["step_time_s"]))
    lines.append(_states(s))
    return lines


def unseen(priced: Json) -> list[str]:
    """The sentence on what no fitted run shows, where there is something."""
    new = [UNSEEN[name] for name in priced.get("interval_new", ())]
    return (
        [f"No run that the planner was fitted on shows {' or '.join(new)}; the interval allows for it."] if new else []
    )


def _frameworks_cut(plan: Plan, step: float) -> list[str]:
    """The sentence on what a framework's own cut costs, where that is a hundredth of the step or more."""
    setting, degrees = plan.setting, plan.degrees
    shape = by_framework(setting.model, int(degrees.pp), int(degrees.vpp), setting.stack.name)
    longer = float(evaluate(units(setting, degrees), shape, setting, degrees).step.total) / step - 1.0
    if longer < WORTH_SAYING:
        return []
    even = f"stages of the same number of layers, which {setting.stack.name} makes without one"
    return [
        f"That is by work, output matrix included, and wants a layout: {even}, take {PERCENT * longer:.1f} % longer."
    ]


def _routing(plan: Plan, step: float) -> str:
    """The sentence on the trace that experts are placed by, and what even loads would bring."""
    found = plan.setting.routing
    even = float(estimate(replace(plan.setting, routing=Routing()), plan.degrees).step.total)
    sent = f" and the busiest network card sends {found.copies:.2f} copies of each token" if found.copies else ""
    return (
        f"Placed by {plan.routing}, the fullest of these GPUs gets {found.imbalance:.3f} times the mean load{sent}: "
        f"{PERCENT * (step / even - 1.0):+.1f} % of step time against even loads and uniform draws."
    )


def _states(s: Json) -> str:
    """The sentence on ZeRO and recompute."""
    kept = {0: "are kept whole", 1: "optimizer states", 2: "optimizer states and gradients", 3: "all states"}
    copies = f" in {s['replicas']} shard groups" if s["replicas"] > 1 else ""
    zero = f"ZeRO-{s['zero']} shards {kept[s['zero']]} over data parallelism{copies}"
    if s["zero"] == 0:
        zero = "Optimizer states are kept whole on every rank"
    again = {"none": "nothing is", "selective": "norms, activations and up-projections are", "full": "every layer is"}
    return f"{zero}; in the backward pass {again[s['recompute']]} recomputed."


def binding(plan: Plan, priced: Json) -> str:
    """What holds the plan back: memory when the next larger micro-batch would not fit, and the largest loss of time."""
    used, capacity = priced["peak_memory_bytes"], priced["memory_capacity_bytes"]
    time, step = priced["time"], priced["step_time_s"]
    largest = max(LOSSES, key=lambda name: time[name])
    share = PERCENT * used / capacity
    has = quantity.format(capacity, "iB")
    memory = f"the fullest stage uses {quantity.format(used, 'iB')} of {has} ({share:.0f} %)"
    wider = replace(plan, degrees=replace(plan.degrees, micro_batch=2 * int(plan.degrees.micro_batch)))
    if used > capacity:
        head = f"Memory binds: {memory}, so the plan does not fit"
    elif not broken(wider.case) and float(estimate(wider.setting, wider.degrees).peak) > capacity:
        head = f"Memory binds: {memory}, and twice the micro-batch would not fit"
    else:
        head = f"Time binds: {memory}"
    lost = f"{LOSSES[largest]} with {PERCENT * time[largest] / step:.0f} % of the step"
    return f"{head}; the largest loss of time is {lost}."
