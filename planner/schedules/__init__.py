"""Pipeline schedules by name: every file of this folder that defines a `Schedule` is in `SCHEDULES`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from hwprofiles.faults import Fault, InputError, nearest
from planner.schedules.base import Schedule

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["SCHEDULES", "Schedule", "get"]

SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule() for schedule in sorted(Schedule.__subclasses__(), key=lambda each: each.name)
}


def get(name: str) -> Schedule:
    """The schedule called `name`; InputError with the nearest known name when there is none."""
    if name not in SCHEDULES:
        expected = f"must be one of {', '.join(SCHEDULES)}"
        raise InputError(Fault("schedule", expected, name, nearest(name, SCHEDULES)))
    return SCHEDULES[name]
