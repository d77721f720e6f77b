"""Optimizers by name: every file of this folder that has a `SHELF` puts it in `OPTIMIZERS`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from planner.optimizers.base import MASTERS, Elementwise, Matrixwise, Optimizer

__all__ = ["MASTERS", "OPTIMIZERS", "Elementwise", "Matrixwise", "Optimizer"]

_FILES = [import_module(f"{__name__}.{_module.name}") for _module in pkgutil.iter_modules(__path__)]
OPTIMIZERS: dict[str, Optimizer] = {
    optimizer.name: optimizer for _file in _FILES for optimizer in getattr(_file, "SHELF", ())
}
