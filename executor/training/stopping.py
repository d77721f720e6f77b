"""Early stopping: which evaluation was the best, and when to wait no longer (Prechelt 1998). Needs no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

FALLING = frozenset({"loss", "perplexity"})
"""Metrics that are better when lower."""


@dataclass
class Patience:
    """Watches `metric`; `value` is the best so far, found at `step`, and `bad` evaluations came since."""

    metric: str
    patience: int
    value: float | None = None
    step: int = 0
    bad: int = 0

    def better(self, step: int, found: float) -> bool:
        """Whether an evaluation is better than all before; it is counted. A value that is no number never is."""
        sign = -1.0 if self.metric in FALLING else 1.0
        if math.isfinite(found) and (self.value is None or sign * found > sign * self.value):
            self.value, self.step, self.bad = found, step, 0
            return True
        self.bad += 1
        return False

    @property
    def over(self) -> bool:
        """Whether it has waited long enough."""
        return self.bad >= self.patience

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def resume(self, state: dict[str, Any]) -> None:
        """Take up a manifest's `state`."""
        self.value, self.step, self.bad = state["value"], state["step"], state["bad"]
