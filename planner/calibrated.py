"""A setting with the numbers of a calibration in place: measured hardware, and the fitted mechanisms of its stack."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from hwprofiles.calibration import Calibration, overlay
from planner.errors import Fault, InputError, nearest
from planner.setting import Setting
from planner.stack import Stack


def calibrated(setting: Setting, calibration: Calibration) -> Setting:
    """`setting` on the cluster that `calibration` describes; its stack too where it is the one that was measured.

    Raises InputError when the calibration is of another GPU, or names a mechanism that no stack has.
    """
    stack = setting.stack
    if calibration.stack_name == stack.name:
        stack = replace(stack, **mechanisms(calibration))
    return replace(setting, cluster=overlay(setting.cluster, calibration), stack=stack)


def mechanisms(calibration: Calibration) -> dict[str, Any]:
    """The fields of a stack that a calibration states, switches as bool; InputError with every unknown one."""
    kinds = {field.name: field.type for field in fields(Stack) if field.type in ("float", "bool")}
    faults = [
        Fault(f"{calibration.name}:stack.{name}", "no stack has this mechanism", None, nearest(name, kinds))
        for name in calibration.stack
        if name not in kinds
    ]
    if faults:
        raise InputError(*faults)
    return {name: bool(value) if kinds[name] == "bool" else value for name, value in calibration.stack.items()}
