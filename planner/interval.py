"""A 90 % interval around a step time."""

from __future__ import annotations

from planner.setting import Setting


def interval(setting: Setting, step_time: float) -> tuple[float, float]:
    """Lower and upper [s]."""
    return 0.75 * step_time, 1.35 * step_time
