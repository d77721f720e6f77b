"""Stochastic gradient descent, with momentum (one state) and without any."""

from __future__ import annotations

from planner.optimizers.base import Elementwise, Optimizer

SHELF = (
    Optimizer("sgd", Elementwise(4.0, 4.0), "Sutskever 2013: one fp32 momentum; reads 12, writes 10 B"),
    Optimizer("sgd-plain", Elementwise(0.0, 2.0), "Robbins and Monro 1951: no state"),
)
