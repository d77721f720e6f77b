"""Learning-rate schedules as a factor of the peak, step by step. Needs no torch; torch.optim.lr_scheduler applies them.

After a linear warm-up to 1 over `warm_up` steps:

| constant | 1 |
| linear | down to `final` in the last step |
| cosine | half a cosine down to `final` (Loshchilov 2017, arXiv:1608.03983) |
| polynomial | (1 - progress)^`power` down to `final` |
| wsd | 1, then linearly down to `final` over the last `decay` steps (warm-up, stable, decay: arXiv:2404.06395) |
| step | times `factor` after every `every` steps |
| plateau | times `factor` when the validation loss has not fallen for `patience` evaluations |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from executor.training import reader

TAKES: dict[str, frozenset[str]] = {
    "constant": frozenset(),
    "linear": frozenset({"final"}),
    "cosine": frozenset({"final"}),
    "polynomial": frozenset({"final", "power"}),
    "wsd": frozenset({"final", "decay"}),
    "step": frozenset({"every", "factor"}),
    "plateau": frozenset({"factor", "patience"}),
}
"""Keys of [schedule] that each kind reads beside `name` and `warm_up`."""


@dataclass(frozen=True)
class Schedule:
    """[schedule] of a recipe: steps and shares of the peak learning rate."""

    name: Annotated[str, reader.choice(*TAKES)] = "constant"
    warm_up: Annotated[int, reader.count(0)] = 0
    final: Annotated[float, reader.number(0.0, 1.0)] = 0.0
    power: Annotated[float, reader.number(0.0, above=True)] = 1.0
    decay: Annotated[int, reader.count()] = 1
    every: Annotated[int, reader.count()] = 1
    factor: Annotated[float, reader.number(0.0, 1.0, above=True)] = 0.1
    patience: Annotated[int, reader.count()] = 1

    def at(self, step: int, steps: int) -> float:
        """The factor in optimizer step `step` (from 1) of `steps`; a plateau's falls come on top."""
        if step <= self.warm_up:
            return step / self.warm_up
        progress = min((step - self.warm_up) / max(steps - self.warm_up, 1), 1.0)
        left = max(steps - step, 0)
        heights: dict[str, float] = {
            "linear": 1.0 - progress,
            "cosine": (1.0 + math.cos(math.pi * progress)) / 2.0,
            "polynomial": (1.0 - progress) ** self.power,
            "wsd": min(left / self.decay, 1.0),
        }
        if self.name in heights:
            return self.final + (1.0 - self.final) * heights[self.name]
        falls = (step - 1) // self.every if self.name == "step" else 0
        return float(self.factor**falls)
