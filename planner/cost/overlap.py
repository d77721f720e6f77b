"""What communication costs once part of it hides behind computation. The only place that decides it."""

from __future__ import annotations

import numpy as np

from planner.formula import Num, formula


@formula(
    unit="s", source="communication less the share that runs beside computation (Narayanan 2021; Rajbhandari 2020)"
)
def exposed(communication: Num, window: Num, share: float) -> Num:
    """Time left visible when `share` of the traffic may hide behind `window` [s] of computation."""
    return communication - share * np.minimum(communication, window)
