"""1F1B: after a warm-up one forward and one backward pass in turn."""

from __future__ import annotations

from typing import final

import numpy as np

from planner.formula import Count, Num, formula
from planner.schedules.base import MICRO_BATCH, WHOLE_STAGE, Program, Schedule, alternate, fill_and_drain, in_order

SOURCE = "Narayanan 2021, arXiv:2104.04473, section 2.2.1"


@final
class OneFOneB(Schedule):
    """The bubble of GPipe with at most pp micro-batches held; also the name of a step without pipeline (pp = 1)."""

    name = "1f1b"
    source = SOURCE
    legal = (MICRO_BATCH, WHOLE_STAGE)

    @staticmethod
    @formula(unit="s", source=SOURCE)
    def bubble(pp: Count, vpp: Count, micro_batches: Count | Num, forward: Num, backward: Num) -> Num:
        """Fill and drain: pp - 1 stages forward and pp - 1 stages backward."""
        return fill_and_drain(pp, forward, backward)

    @staticmethod
    @formula(unit="micro-batches", source=SOURCE)
    def in_flight(pp: Count, vpp: Count, micro_batches: Count | Num, rank: Count) -> Num:
        """As many as there are stages from here to the last."""
        return 1.0 * np.minimum(micro_batches, pp - rank)

    def program(self, pp: int, vpp: int, micro_batches: int) -> Program:
        """Rank r warms up with pp - 1 - r forward passes (Megatron-LM's order)."""
        forwards = in_order("F", micro_batches)
        backwards = in_order("B", micro_batches)
        return [alternate(forwards, backwards, min(pp - 1 - rank, micro_batches)) for rank in range(pp)]
