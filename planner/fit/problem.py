"""The least-squares problem: parameters of stacks and clocks of GPU generations against log step times of runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner import stack
from planner.estimate import estimate
from planner.plan import Plan
from planner.validate.read import measured_step, read
from planner.validate.refusal import Refused
from planner.validate.translate import translate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """A mechanism of a stack: prior and its standard deviation in the fitted coordinate (log, or plain for shares)."""

    name: str
    sigma: float
    low: float
    high: float
    log: bool = True


PARAMETERS = (
    Parameter("pointwise_traffic", 0.35, 1.0, 6.0),
    Parameter("attention_rate", 0.25, 0.2, 1.3),
    Parameter("kernel_gap", 0.7, 1e-8, 5e-5),
    Parameter("expert_gap", 0.7, 1e-8, 5e-5),
    Parameter("tensor_overlap", 0.25, -0.75, 0.95, log=False),
    Parameter("gradient_overlap", 0.25, 0.0, 1.0, log=False),
    Parameter("step_overhead", 0.7, 1e-3, 1.0),
)
CLOCK = Parameter("sustained", 0.08, 0.5, 1.0)
EXPERT_GAP = 5e-6  # prior [s], a launch of the host; a stack file says 0 where no experts were seen
TRUST = {"A": 1.0, "B": 1.0, "C": 0.5}


@dataclass(frozen=True)
class Run:
    """A run to fit: its plan, log of the measured step, weight, source family."""

    name: str
    plan: Plan
    target: float
    weight: float
    source: str

    @property
    def generation(self) -> str:
        """Of its GPU."""
        return self.plan.setting.gpu.generation


def load(path: Path) -> list[Run]:
    """All runs that are predicted and timed; the runs of one scaling group share one weight and a half."""
    rows = read(path)
    sizes: dict[str, int] = {}
    for row in rows:
        if row.get("scaling_group"):
            sizes[row["scaling_group"]] = sizes.get(row["scaling_group"], 0) + 1
    runs = []
    for row in rows:
        step = measured_step(row)
        try:
            plan = translate(row)
        except Refused:
            continue
        if step is not None:
            group = sizes.get(row.get("scaling_group") or "", 1)
            weight = TRUST.get(str(row.get("trust")), 0.5) / math.sqrt(group**0.5)
            runs.append(Run(row["id"], plan, math.log(step), weight, str(row["source"]).split(" ")[0]))
    return runs


@dataclass(frozen=True)
class Layout:
    """Where each parameter stands in the vector: `stacks` × PARAMETERS, then one clock per generation."""

    stacks: tuple[str, ...]
    generations: tuple[str, ...]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return len(self.stacks) * len(PARAMETERS) + len(self.generations)

    def prior(self) -> Floats:
        """The a-priori vector in fitted coordinates: what the stack files say, whatever was fitted before."""
        values = []
        for name in self.stacks:
            stated = stack.prior(name)
            values += [_to(p, stated[p.name] or (EXPERT_GAP if p.log else 0.0)) for p in PARAMETERS]
        return np.array([*values, *([0.0] * len(self.generations))])

    def of(self, run: Run, vector: Floats) -> dict[str, float]:
        """The plain values that apply to a run, `sustained` among them."""
        start = self.stacks.index(run.plan.setting.stack.name) * len(PARAMETERS)
        found = {p.name: _from(p, vector[start + i]) for i, p in enumerate(PARAMETERS)}
        clock = len(self.stacks) * len(PARAMETERS) + self.generations.index(run.generation)
        return {**found, "sustained": _from(CLOCK, vector[clock])}


def _to(p: Parameter, value: float) -> float:
    return math.log(value) if p.log else value


def _from(p: Parameter, value: float) -> float:
    plain = math.exp(value) if p.log else float(value)
    return min(max(plain, p.low), p.high)


def predict(run: Run, values: dict[str, float], base: dict[str, float]) -> float:
    """Log of the predicted step; what the row itself switched (graphs, no overlap) scales with the stack's value."""
    setting = run.plan.setting
    fields: dict[str, Any] = {}
    for p in PARAMETERS:
        own, usual = getattr(setting.stack, p.name), base[p.name]
        fields[p.name] = values[p.name] if own == usual else own if not usual else values[p.name] * own / usual
    stack = replace(setting.stack, **fields)
    changed = replace(setting, stack=stack, clock=values["sustained"])
    return math.log(float(estimate(changed, run.plan.degrees).step.total))
