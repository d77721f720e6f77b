"""The mechanisms of the cost model, each with a way to take it out of a run's prediction.

A part of the step is left out of its sum; what a stack, a clock or a curve says is set to the neutral value. Nothing
else of the model changes, so that a prediction without a mechanism is what a simpler model would say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from planner import stack
from planner.cost.step import StepTime
from planner.fit.problem import PARAMETERS, Run
from planner.setting import Setting
from planner.stack import Stack

KEPT = ("compute", "teacher")  # parts that no model of a step can leave out, or that no published run has
PARTS = {
    "launch": "launches of the host, gaps between kernels",
    "recompute": "recomputation",
    "tensor": "tensor-parallel communication",
    "context": "context-parallel communication",
    "expert": "expert all-to-all",
    "pipeline": "sends between stages",
    "imbalance": "uneven stages",
    "bubble": "pipeline bubble",
    "data": "gradient and parameter communication",
    "optimizer": "optimizer step",
    "host": "host work once per step",
    "stragglers": "stragglers",
}
HELD = {
    "sustained": (1.0, "clock under load, per GPU and format"),
    "host_pace": (1.0, "pace of the host's processor"),
    "pointwise_traffic": (1.0, "unfused memory-bound work of the stack"),
    "attention_rate": (1.0, "attention rate of the stack"),
}
NETWORK = ("latency", "launch", "fill")


@dataclass(frozen=True)
class Ablation:
    """A mechanism, in words, and what a run is without it."""

    name: str
    change: Callable[[Run], Run]


def ablations(runs: Sequence[Run]) -> list[Ablation]:
    """Every mechanism of the model: what stacks, runs, clocks, curves and networks say, then parts of the step."""
    parts = [field.name for field in fields(StepTime) if field.name not in KEPT]
    usual = Counter(run.plan.setting.stack.name for run in runs).most_common(1)[0][0]
    return [
        Ablation(f"parameters of each stack (those of {usual} for all)", partial(alike, name=usual)),
        Ablation("what a run says of its graphs, overlap, recompute and dispatcher", unswitched),
        *(Ablation(words, partial(hold, name=name, value=value)) for name, (value, words) in HELD.items()),
        Ablation("attention kernel of the stack (the profile's for all)", unattended),
        Ablation("size of multiplies and attention (efficiency of the largest for all)", unshaped),
        Ablation("latency and ramp of the network (bandwidth alone)", immediate),
        *(Ablation(PARTS.get(part, part), partial(leave, part=part)) for part in parts),
    ]


def leave(run: Run, part: str) -> Run:
    """The step without one of its parts."""
    return replace(run, without=(*run.without, part))


def hold(run: Run, name: str, value: float) -> Run:
    """A mechanism at a plain value, not fitted."""
    return replace(run, held={**run.held, name: value})


def alike(run: Run, name: str) -> Run:
    """The stack with the fitted mechanisms of the stack called `name`; what it fuses, hides or stores stays its own."""
    own, usual, other = run.plan.setting.stack, stack.load(run.plan.setting.stack.name), stack.load(name)
    values: dict[str, Any] = {p.name: _scaled(own, usual, other, p.name) for p in PARAMETERS}
    return _in_setting(run, stack=replace(own, name=name, **values))


def unswitched(run: Run) -> Run:
    """The stack as its file has it, whatever the row says of graphs, overlap, recompute and dispatcher."""
    return _in_setting(run, stack=stack.load(run.plan.setting.stack.name))


def unattended(run: Run) -> Run:
    """The attention kernel that the profile of the GPU was fitted on."""
    return _in_setting(run, stack=replace(run.plan.setting.stack, attention_kernel="profile"))


def unshaped(run: Run) -> Run:
    """Curves of the GPU without what small sizes lose."""
    gpu = run.plan.setting.gpu
    curves = {form: _flat(curve) for form, curve in gpu.matmul.items()}
    flat = replace(gpu, matmul=curves, grouped=_flat(gpu.grouped), attention=_flat(gpu.attention))
    return _in_setting(run, cluster=replace(run.plan.setting.cluster, gpu=flat))


def immediate(run: Run) -> Run:
    """A network whose messages start at once, at full speed."""
    cluster = run.plan.setting.cluster
    none: dict[str, Any] = dict.fromkeys(NETWORK, 0.0)
    tiers = tuple(replace(tier, **none) for tier in cluster.tiers)
    return _in_setting(run, cluster=replace(cluster, tiers=tiers))


def _in_setting(run: Run, **changes: Any) -> Run:
    setting: Setting = replace(run.plan.setting, **changes)
    return replace(run, plan=replace(run.plan, setting=setting))


def _scaled(own: Stack, usual: Stack, other: Stack, name: str) -> float:
    """The other stack's value, switched by the row as it switched its own stack's."""
    stated, plain, found = (float(getattr(each, name)) for each in (own, usual, other))
    return found if stated == plain else found * stated / plain if plain else stated


def _flat(curve: Any) -> Any:
    """An efficiency curve at its limit for large sizes."""
    halves = {field.name: 0.0 for field in fields(curve) if field.name.endswith("_half")}
    return replace(curve, **halves)
