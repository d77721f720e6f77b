"""`plan search`: the best plans of a model on a cluster, the frontier, and an account of what was looked at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwprofiles import quantity
from planner.errors import Fault, InputError, NoPlan, nearest
from planner.plan import Json, Plan, cluster_json, estimate_json, model_json, provenance
from planner.provenance import SCHEMA_VERSION, tool_version
from planner.schedules import SCHEDULES
from planner.search.space import AXES, CHOICES, SWEPT, bounds, fixed, whole_space
from planner.search.sweep import Found, Sweep, sweep
from planner.strategy import ORDERS, RECOMPUTE, ZERO

LARGEST = 10**9  # an axis beyond this is a slip of the keyboard
HEADROOM = 0.05  # share of the memory that a plan leaves free: the estimate is not exact and allocators fragment
OBJECTIVES = ("time", "cost", "memory")
LEGAL_CHOICES: dict[str, tuple[Any, ...]] = {
    "schedule": tuple(SCHEDULES),
    "recompute": RECOMPUTE,
    "zero": ZERO,
    "order": ORDERS,
}


@dataclass(frozen=True)
class Query:
    """What to search: `plan` carries the inputs; `fix` holds axes or choices; `objective` time, cost or memory."""

    plan: Plan
    objective: str = "time"
    top: int = 10
    max_micro_batch: int = 8
    headroom: float = HEADROOM
    fix: tuple[tuple[str, Any], ...] = ()
    schedules: tuple[str, ...] = SWEPT


@dataclass(frozen=True)
class Outcome:
    """The plans (best first), the frontier (fastest first) and the sweep that found them."""

    plans: list[Plan]
    frontier: list[Plan]
    found: Sweep
    bounds: list[str]
    seconds: float


def search(query: Query) -> Outcome:
    """The best plans of one cluster size; NoPlan when nothing legal fits."""
    started = time.perf_counter()
    plan = query.plan
    check_precision(plan)
    whole = whole_space(plan.case, query.max_micro_batch, query.schedules)
    space = fixed(whole, dict(query.fix))
    objective = "memory" if query.objective == "memory" else "time"  # cost is time at a given size
    limit = (1.0 - query.headroom) * plan.setting.gpu.hbm_capacity
    found = sweep(plan.case, plan.setting, space, objective, query.top, limit)
    limits = [*bounds(plan.case, query.max_micro_batch), f"{query.headroom:.0%} of the memory left free (--headroom)"]
    if not found.fitting:
        raise NoPlan(why_nothing(plan, found, limit))
    plans, front = _plans(plan, found, found.best), _plans(plan, found, found.frontier)
    return Outcome(plans, front, found, limits, time.perf_counter() - started)


def search_sizes(queries: Sequence[Query]) -> list[Outcome]:
    """One search per cluster size; sizes without a plan are left out unless none has one."""
    outcomes, reasons = [], []
    for query in queries:
        try:
            outcomes.append(search(query))
        except NoPlan as error:
            reasons.append(str(error))
    if not outcomes:
        raise NoPlan("\n".join(reasons))
    return outcomes


def merged(outcomes: list[Outcome], objective: str, top: int) -> Json:
    """`plan search --json` over one or several sizes: best plans by the objective, frontier of time, memory, GPUs."""
    first = outcomes[0].plans[0]
    seq_len = first.setting.workload.seq_len
    plans = [estimate_json(p.setting, p.degrees) for o in outcomes for p in o.plans]
    price = first.setting.cluster.price
    keys = {
        "time": lambda e: (e["step_time_s"], e["peak_memory_bytes"]),
        "cost": lambda e: (e["step_time_s"] * e["strategy"]["world"] * price, e["peak_memory_bytes"]),
        "memory": lambda e: (e["peak_memory_bytes"], e["step_time_s"]),
    }
    tally = [o.found.tally.dropped for o in outcomes]
    dropped = {name: sum(t.get(name, 0) for t in tally) for name in dict.fromkeys(n for t in tally for n in t)}
    legal = sum(o.found.legal for o in outcomes)
    fitting = sum(o.found.fitting for o in outcomes)
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "objective": objective,
        "plans": sorted(plans, key=keys[objective])[:top],
        "frontier": pareto([estimate_json(p.setting, p.degrees) for o in outcomes for p in o.frontier]),
        "searched": legal + sum(dropped.values()),
        "legal": legal,
        "priced": fitting,
        "dropped": {**dropped, "memory": legal - fitting},
        "bounds": outcomes[0].bounds,
        "seconds": sum(o.seconds for o in outcomes),
        "model": model_json(first.setting.model, seq_len),
        "cluster": cluster_json(first.setting),
        "provenance": max((provenance(p) for o in outcomes for p in o.plans), key=len),
    }


def pareto(estimates: list[Json]) -> list[Json]:
    """Those that no other beats in step time, memory and GPUs at once, fastest first."""
    points = np.array([[e["step_time_s"], e["peak_memory_bytes"], e["strategy"]["world"]] for e in estimates])
    kept = [
        estimate
        for point, estimate in zip(points, estimates, strict=True)
        if not np.any(np.all(points <= point, axis=1) & np.any(points < point, axis=1))
    ]
    return sorted(kept, key=lambda e: (e["step_time_s"], e["peak_memory_bytes"]))


def check_precision(plan: Plan) -> None:
    """Refuse a number format that the GPU has no matrix units for."""
    name, gpu = plan.setting.choices.precision, plan.setting.gpu
    if name not in gpu.matmul:
        has = ", ".join(gpu.matmul)
        raise InputError(Fault("--precision", f"{gpu.name} has no such matrix units; it has {has}", name))


def parse_fix(text: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """`tp=8,schedule=1f1b` -> axes and choices held; InputError with every fault."""
    faults: list[Fault] = []
    found: dict[str, Any] = {}
    known = (*AXES, *CHOICES)
    for item in (piece for part in text for piece in part.split(",") if piece):
        name, _, value = item.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            faults.append(
                Fault("--fix", f"expected axis=value with an axis of {', '.join(known)}", item, nearest(name, known))
            )
        elif name in LEGAL_CHOICES:
            match = [choice for choice in LEGAL_CHOICES[name] if str(choice) == value.strip()]
            found[name] = match[0] if match else None
            if not match:
                options = [str(choice) for choice in LEGAL_CHOICES[name]]
                faults.append(
                    Fault(f"--fix {name}", f"expected one of {', '.join(options)}", value, nearest(value, options))
                )
        elif not value.strip().isdecimal() or not 1 <= int(value) <= LARGEST:
            faults.append(Fault(f"--fix {name}", "expected a whole number from 1 to 1e9", value))
        else:
            found[name] = int(value)
    if faults:
        raise InputError(*faults)
    return tuple(found.items())


def why_nothing(plan: Plan, found: Sweep, limit: float) -> str:
    """Why no candidate is left, and the nearest change that would help."""
    gpus = int(plan.degrees.world)
    if not found.legal:
        most = sorted(found.tally.dropped.items(), key=lambda item: -item[1])[:4]
        listed = ", ".join(f"{name} dropped {count:,}" for name, count in most) or "the space is empty"
        name = plan.setting.model.name
        return f"no legal strategy for {name} on {gpus:,} GPUs: {listed}; change --gpus, --global-batch or --fix"
    least = float(found.leanest.peak[0])
    need = f"{quantity.format(least, 'iB')} of {quantity.format(limit, 'iB')}"
    degrees = found.leanest.degrees.take(0)
    shape = f"tp={degrees.tp} pp={degrees.pp} cp={degrees.cp} ep={degrees.ep} micro_batch={degrees.micro_batch}"
    return (
        f"none of the {found.legal:,} legal strategies of {plan.setting.model.name} fits {gpus:,} x "
        f"{plan.setting.gpu.name}: "
        f"memory dropped all; the leanest ({shape}) needs {need}. Use about {least / limit:.1f} times the GPUs, "
        "a GPU with more memory, or --optimizer adam-bf16"
    )


def _plans(plan: Plan, sweep_found: Sweep, found: Found) -> list[Plan]:
    """The candidates as plans of plain ints."""
    return [
        replace(
            plan,
            setting=replace(plan.setting, choices=sweep_found.choices[int(found.choice[i])]),
            degrees=found.degrees.take(i),
        )
        for i in range(len(found.time))
    ]
