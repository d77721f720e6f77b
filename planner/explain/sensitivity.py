"""What a change of each hardware number would bring: the same plan priced with it 10 % lower and higher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hwprofiles.spec import Cluster
from planner.estimate import estimate
from planner.plan import Json, Plan
from planner.setting import Setting

STEP = 0.10

Change = Callable[[Cluster, float], Cluster]


def sensitivity(plan: Plan) -> list[Json]:
    """Relative change of the step time at -10 % and +10 % of each input, the strongest first."""
    base = float(estimate(plan.setting, plan.degrees).step.total)
    rows = []
    for key, (label, change) in _inputs(plan.setting).items():
        less, more = (_step(plan, change, factor) / base - 1.0 for factor in (1.0 - STEP, 1.0 + STEP))
        rows.append({"input": key, "label": label, "minus": less, "plus": more})
    return sorted(rows, key=lambda row: (-max(abs(row["minus"]), abs(row["plus"])), row["input"]))


def _step(plan: Plan, change: Change, factor: float) -> float:
    setting = replace(plan.setting, cluster=change(plan.setting.cluster, factor))
    return float(estimate(setting, plan.degrees).step.total)


def _inputs(setting: Setting) -> dict[str, tuple[str, Change]]:
    """Every hardware number that the step time reads, as a change of the cluster."""
    peaks = dict.fromkeys((setting.precision.base, setting.precision.peak))
    found: dict[str, tuple[str, Change]] = {f"gpu.peak.{kind}": (f"{kind} peak FLOP/s", _peak(kind)) for kind in peaks}
    found["gpu.hbm_bandwidth"] = ("HBM bandwidth", _gpu("hbm_bandwidth"))
    found["gpu.grouped.efficiency"] = ("expert GEMM efficiency", _grouped)
    for index, tier in enumerate(setting.cluster.tiers):
        found[f"tier.{tier.name}.bandwidth"] = (f"{tier.name} bandwidth", _tier(index, "bandwidth"))
        found[f"tier.{tier.name}.latency"] = (f"{tier.name} latency", _tier(index, "latency"))
    return found


def _gpu(field: str) -> Change:
    return lambda c, factor: replace(c, gpu=replace(c.gpu, **{field: getattr(c.gpu, field) * factor}))


def _peak(kind: str) -> Change:
    return lambda c, x: replace(c, gpu=replace(c.gpu, peak={**c.gpu.peak, kind: c.gpu.peak[kind] * x}))


def _grouped(c: Cluster, factor: float) -> Cluster:
    curve = replace(c.gpu.grouped, efficiency=c.gpu.grouped.efficiency * factor)
    return replace(c, gpu=replace(c.gpu, grouped=curve))


def _tier(index: int, field: str) -> Change:
    def change(c: Cluster, factor: float) -> Cluster:
        tiers = list(c.tiers)
        tiers[index] = replace(tiers[index], **{field: getattr(tiers[index], field) * factor})
        return replace(c, tiers=tuple(tiers))

    return change
