"""The least-squares problem: parameters of stacks and clocks of GPU generations against log step times of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwprofiles import load as profiles
from planner import stack
from planner.plan import Plan
from planner.validate.facts import planned, stated
from planner.validate.read import measured_step, read
from planner.validate.refusal import Refused
from planner.validate.stages import step_as_cut
from planner.validate.translate import translate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """A mechanism of a stack: prior and its standard deviation in the fitted coordinate (log, or plain for shares).

    `kin`: share of the prior's variance that stacks of one family have in common.
    """

    name: str
    sigma: float
    low: float
    high: float
    log: bool = True
    kin: float = 0.7


OWN_KERNELS = 0.3
"""What a stack fuses and does once per step is mostly its own, where overlap and launches follow from its family."""
PARAMETERS = (
    Parameter("pointwise_traffic", 0.35, 0.8, 6.0, kin=OWN_KERNELS),
    Parameter("attention_rate", 0.1, 0.2, 1.3, kin=OWN_KERNELS),
    Parameter("kernel_gap", 0.7, 1e-8, 1e-3),
    Parameter("expert_gap", 0.7, 1e-8, 4e-4),
    Parameter("tensor_overlap", 0.25, -0.75, 0.95, log=False),
    Parameter("gradient_overlap", 0.25, 0.0, 1.0, log=False),
    Parameter("step_overhead", 0.7, 1e-3, 1.0, kin=OWN_KERNELS),
    Parameter("launch_cost", 0.7, 1e-7, 1e-3),
    Parameter("dispatch_gap", 0.7, 1e-6, 1e-2),
    Parameter("collective_gap", 0.7, 1e-7, 1e-3),
)
CLOCK = Parameter("sustained", 0.08, 0.5, 1.1)
GRACE = "grace"
HOST = Parameter("host_pace", 0.7, 0.5, 4.0)
UNSTATED = {"expert_gap": 5e-6, "launch_cost": 5.6e-5, "dispatch_gap": 1e-3, "collective_gap": 5e-6}
"""Priors [s] where a stack file says nothing: a launch of the host takes 5 us, and a part is a few kernels."""
TRUST = {"A": 1.0, "B": 1.0, "C": 0.5}
_GENERATION, _GPU, _FORM, _OWN = 0.5, 0.2, 0.15, 0.15
"""Shares of a clock's prior variance by what two clocks have in common."""


@dataclass(frozen=True)
class Run:
    """A run to fit: its plan, log of the measured step, weight, source family, and facts (`planner.validate.facts`).

    An ablation also sets `held`, mechanisms at a plain value whatever is fitted, and `without`, parts of the step that
    are left out of its sum.
    """

    name: str
    plan: Plan
    target: float
    weight: float
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    held: Mapping[str, float] = field(default_factory=dict)
    without: tuple[str, ...] = ()

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
            facts = stated(row) | planned(row, plan)
            runs.append(Run(row["id"], plan, math.log(step), weight, facts["source"].split(" ")[0], facts))
    return runs


@dataclass(frozen=True)
class Layout:
    """Places in the vector: `stacks` × PARAMETERS, then one clock per (GPU, format), then the host's pace."""

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
        values = [value for name in self.stacks for value in _stated(name)]
        return np.array([*values, *([0.0] * (len(self.clocks) + 1))])

    def covariance(self) -> Floats:
        """Of the priors: stacks of one family are expected to deviate alike, and so are clocks of one generation."""
        found = np.zeros((self.size, self.size))
        for i, p in enumerate(PARAMETERS):
            rows = np.arange(len(self.stacks)) * len(PARAMETERS) + i
            found[np.ix_(rows, rows)] = p.sigma**2 * self._kin(self.stacks, p)
        found[self.block : -1, self.block : -1] = CLOCK.sigma**2 * _clock_kin(self.clocks, self.clocks)
        found[-1, -1] = HOST.sigma**2
        return found

    def expected_stack(self, name: str, vector: Floats) -> dict[str, float]:
        """The plain values of a stack that no run shows: its file's, moved as its kin were."""
        moved = (vector - self.prior())[: self.block].reshape(len(self.stacks), -1)
        own, found = _stated(name), {}
        for i, p in enumerate(PARAMETERS):
            pull = np.linalg.solve(self._kin(self.stacks, p), self._kin((name,), p)[0])
            found[p.name] = _from(p, own[i] + float(pull @ moved[:, i]))
        return found

    def _kin(self, some: Sequence[str], p: Parameter) -> Floats:
        """Correlation of how some stacks, and those of this layout, deviate from what their files say."""
        return np.array([[_kinship(one, other, p) for other in self.stacks] for one in some])

    def expected_clock(self, generation: str, vector: Floats) -> float:
        """The sustained clock of a GPU of `generation` that no run shows."""
        pull = np.linalg.solve(
            _clock_kin(self.clocks, self.clocks),
            [_GENERATION * (_generation(gpu) == generation) for gpu, _ in self.clocks],
        )
        return _from(CLOCK, float(pull @ vector[self.block : -1]))

    def bounds(self) -> tuple[Floats, Floats]:
        """Least and largest vector."""
        each = [*PARAMETERS] * len(self.stacks) + [CLOCK] * len(self.clocks) + [HOST]
        return np.array([_to(p, p.low) for p in each]), np.array([_to(p, p.high) for p in each])

    def places(self, run: Run) -> list[int]:
        """Place of each mechanism of a run in the vector."""
        start = self.stacks.index(run.plan.setting.stack.name) * len(PARAMETERS)
        clock = self.block + self.clocks.index(run.clock)
        return [*range(start, start + len(PARAMETERS)), clock, self.size - 1]

    def of(self, name: str, vector: Floats) -> dict[str, float]:
        """The plain values of the mechanisms of a stack."""
        start = self.stacks.index(name) * len(PARAMETERS)
        return {p.name: _from(p, vector[start + i]) for i, p in enumerate(PARAMETERS)}

    def moved(self, run: Run, vector: Floats, step: float) -> dict[str, Floats]:
        """The plain values that apply to a run: as `vector` has them, then with each mechanism moved by `step`."""
        own = vector[self.places(run)]
        rows = np.vstack([own, own + step * np.eye(len(own))])
        each = (*PARAMETERS, CLOCK, HOST)
        return {p.name: np.array([_from(p, value) for value in rows[:, i]]) for i, p in enumerate(each)}


def _kinship(one: str, other: str, p: Parameter) -> float:
    """Correlation of how a mechanism of two stacks deviates from what their files say."""
    return 1.0 if one == other else p.kin * (stack.family(one) == stack.family(other))


def _clock_kin(some: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]]) -> Floats:
    """Correlation of the sustained clocks: GPUs of one generation, formats of one GPU, a format of one generation."""
    found = np.zeros((len(some), len(others)))
    for i, (gpu, form) in enumerate(some):
        for j, (other, another) in enumerate(others):
            same = _generation(gpu) == _generation(other)
            alike = _GENERATION + _FORM * (form == another)
            found[i, j] = same * alike + _GPU * (gpu == other) + _OWN * ((gpu, form) == (other, another))
    return found


def _generation(gpu: str) -> str:
    return profiles.gpu(gpu).generation


def _stated(name: str) -> list[float]:
    """The a-priori values of a stack in fitted coordinates."""
    stated = stack.prior(name)
    return [_to(p, stated.get(p.name) or UNSTATED.get(p.name, 0.0)) for p in PARAMETERS]


def _to(p: Parameter, value: float) -> float:
    return math.log(value) if p.log else value


def _from(p: Parameter, value: float) -> float:
    plain = math.exp(value) if p.log else float(value)
    return min(max(plain, p.low), p.high)


def predict(run: Run, values: dict[str, Floats], base: dict[str, float]) -> Floats:
    """Log of the predicted step for each of a row of values of every mechanism, priced as one batch.

    What the row itself switched (graphs, no overlap) scales with the stack's value.
    """
    setting = run.plan.setting
    fields: dict[str, Any] = {}
    for p in PARAMETERS:
        own, usual = getattr(setting.stack, p.name), base[p.name]
        fields[p.name] = values[p.name] if own == usual else own if not usual else values[p.name] * (own / usual)
    fields |= {name: value for name, value in run.held.items() if name in fields}
    batch: dict[str, Any] = {
        "stack": replace(setting.stack, **fields),
        "clock": run.held.get("sustained", values["sustained"]),
        "pace": run.held.get("host_pace", values["host_pace"]) if setting.cluster.node.host == GRACE else 1.0,
    }
    step = step_as_cut(replace(setting, **batch), run.plan.degrees)
    total = step.total - sum(getattr(step, part) for part in run.without)
    return np.broadcast_to(np.log(np.asarray(total, dtype=np.float64)), values["sustained"].shape)
