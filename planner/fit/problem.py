"""The least-squares problem: parameters of stacks and clocks of GPU generations against log step times of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwprofiles import load as profiles
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
    Parameter("expert_gap", 0.7, 1e-8, 2e-4),
    Parameter("tensor_overlap", 0.25, -0.75, 0.95, log=False),
    Parameter("gradient_overlap", 0.25, 0.0, 1.0, log=False),
    Parameter("step_overhead", 0.7, 1e-3, 1.0),
)
CLOCK = Parameter("sustained", 0.08, 0.5, 1.1)
HOST = Parameter("host_pace", 0.7, 0.5, 4.0)
EXPERT_GAP = 5e-6  # prior [s], a launch of the host; a stack file says 0 where no experts were seen
TRUST = {"A": 1.0, "B": 1.0, "C": 0.5}
KIN = 0.7
"""Share of a mechanism's prior variance that stacks of one family have in common, and clocks of one generation."""


@dataclass(frozen=True)
class Run:
    """A run to fit: its plan, log of the measured step, weight, source family."""

    name: str
    plan: Plan
    target: float
    weight: float
    source: str

    @property
    def clock(self) -> tuple[str, str]:
        """Its GPU and the format of its multiplies."""
        return self.plan.setting.gpu.name, self.plan.setting.precision.peak


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
    """Where each parameter stands in the vector: `stacks` × PARAMETERS, one clock per (GPU, format), the host's pace."""

    stacks: tuple[str, ...]
    clocks: tuple[tuple[str, str], ...]

    @property
    def block(self) -> int:
        """How many parameters belong to stacks."""
        return len(self.stacks) * len(PARAMETERS)

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self.block + len(self.clocks) + 1

    def prior(self) -> Floats:
        """The a-priori vector in fitted coordinates: what the stack files say, whatever was fitted before."""
        values = []
        for name in self.stacks:
            stated = stack.prior(name)
            values += [_to(p, stated[p.name] or (EXPERT_GAP if p.log else 0.0)) for p in PARAMETERS]
        return np.array([*values, *([0.0] * (len(self.clocks) + 1))])

    def whitening(self) -> Floats:
        """W with |W (x - prior)|² the misfit of the priors: kin are expected to deviate alike."""
        kin = np.array([[_family(a) == _family(b) for b in self.stacks] for a in self.stacks], dtype=float)
        covariance = np.zeros((self.size, self.size))
        for i, p in enumerate(PARAMETERS):
            rows = np.arange(len(self.stacks)) * len(PARAMETERS) + i
            covariance[np.ix_(rows, rows)] = p.sigma**2 * (KIN * kin + (1.0 - KIN) * np.eye(len(rows)))
        covariance[self.block : -1, self.block : -1] = CLOCK.sigma**2 * clock_kinship(self.clocks)
        covariance[-1, -1] = HOST.sigma**2
        return np.linalg.inv(np.linalg.cholesky(covariance))

    def bounds(self) -> tuple[Floats, Floats]:
        """Least and largest vector."""
        each = [*PARAMETERS] * len(self.stacks) + [CLOCK] * len(self.clocks) + [HOST]
        return np.array([_to(p, p.low) for p in each]), np.array([_to(p, p.high) for p in each])

    def mechanisms(self) -> NDArray[np.int64]:
        """Which mechanism each place of the vector is; those of one mechanism share no run."""
        own = [*range(len(PARAMETERS))] * len(self.stacks)
        return np.array([*own, *([len(PARAMETERS)] * len(self.clocks)), len(PARAMETERS) + 1])

    def places(self, run: Run) -> list[int]:
        """Place of each mechanism of a run in the vector."""
        start = self.stacks.index(run.plan.setting.stack.name) * len(PARAMETERS)
        clock = self.block + self.clocks.index(run.clock)
        return [*range(start, start + len(PARAMETERS)), clock, self.size - 1]

    def of(self, run: Run, vector: Floats) -> dict[str, float]:
        """The plain values that apply to a run, `sustained` and `host_pace` among them."""
        each = (*PARAMETERS, CLOCK, HOST)
        return {p.name: _from(p, vector[place]) for p, place in zip(each, self.places(run), strict=True)}


def clock_kinship(clocks: Sequence[tuple[str, str]]) -> Floats:
    """Correlation of the sustained clocks: GPUs of one generation, and formats of one GPU, run alike."""
    generations = [profiles.gpu(gpu).generation for gpu, _ in clocks]
    found = np.zeros((len(clocks), len(clocks)))
    for i, (gpu, form) in enumerate(clocks):
        for j, (other, another) in enumerate(clocks):
            same = generations[i] == generations[j]
            found[i, j] = 0.5 * same + 0.2 * (gpu == other) + 0.15 * (same and form == another) + 0.15 * (i == j)
    return found


def _family(name: str) -> str:
    """The stacks that are expected to deviate alike from what their files say."""
    return str(stack.prior(name).get("family", name))


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
    changed = replace(setting, stack=stack, clock=values["sustained"], pace=values["host_pace"] if setting.slow_host else 1.0)
    return math.log(float(estimate(changed, run.plan.degrees).step.total))
