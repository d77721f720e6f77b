"""GPipe: all forward passes, then all backward passes."""

from __future__ import annotations

from typing import final

from planner.formula import Count, Num, formula
from planner.schedules.base import MICRO_BATCH, PIPELINED, WHOLE_STAGE, Program, Schedule, fill_and_drain, in_order

SOURCE = "Huang 2019 (GPipe), arXiv:1811.06965"


@final
class GPipe(Schedule):
    """Every micro-batch goes forward before the first comes back: the least to coordinate, the most to hold."""

    name = "gpipe"
    source = SOURCE
    legal = (MICRO_BATCH, PIPELINED, WHOLE_STAGE)

    @staticmethod
    @formula(unit="s", source=SOURCE)
    def bubble(pp: Count, vpp: Count, micro_batches: Count | Num, forward: Num, backward: Num) -> Num:
        """Fill and drain: pp - 1 stages forward and pp - 1 stages backward."""
        return fill_and_drain(pp, forward, backward)

    @staticmethod
    @formula(unit="micro-batches", source=SOURCE)
    def in_flight(pp: Count, vpp: Count, micro_batches: Count | Num, rank: Count) -> Num:
        """All micro-batches of the step."""
        return 1.0 * micro_batches + 0 * rank

    def program(self, pp: int, vpp: int, micro_batches: int) -> Program:
        """Forward and backward in the order of the micro-batches, the same on each rank."""
        forwards = in_order("F", micro_batches)
        backwards = in_order("B", micro_batches)
        return [forwards + backwards for _ in range(pp)]
