"""Lion: the sign of an interpolated momentum (Chen 2023, arXiv:2302.06675)."""

from __future__ import annotations

from planner.optimizers.base import Elementwise, Optimizer

SHELF = (
    Optimizer(
        "lion", Elementwise(4.0, 10.0), "Chen 2023, arXiv:2302.06675: one fp32 momentum; two blends, sign, decay"
    ),
)
