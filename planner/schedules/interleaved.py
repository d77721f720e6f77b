"""Interleaved 1F1B: each rank holds vpp chunks of the model, so that the pipeline fills vpp times as fast."""

from __future__ import annotations

from typing import final

import numpy as np

from planner.formula import Count, Num, formula
from planner.schedules.base import MICRO_BATCH, PIPELINED, Action, Kind, Program, Requirement, Schedule, alternate

SOURCE = "Narayanan 2021, arXiv:2104.04473, section 2.2.2"


@final
class Interleaved(Schedule):
    """1F1B over chunks: 1/vpp of its bubble for vpp times the messages and more micro-batches held."""

    name = "interleaved"
    source = SOURCE
    chunked = True
    legal = (
        MICRO_BATCH,
        PIPELINED,
        Requirement("chunks", lambda _pp, vpp, _micro_batches: vpp > 1, "vpp = {vpp} must be at least 2"),
        Requirement(
            "rounds",
            lambda pp, _vpp, micro_batches: micro_batches % pp == 0,
            "micro_batches = {micro_batches} must be a multiple of pp = {pp}",
        ),
    )

    @staticmethod
    @formula(unit="s", source=SOURCE)
    def bubble(pp: Count, vpp: Count, micro_batches: Count | Num, forward: Num, backward: Num) -> Num:
        """Fill and drain by chunks: pp - 1 chunks forward and pp - 1 chunks backward."""
        return (pp - 1) * (forward + backward) / vpp

    @staticmethod
    @formula(unit="micro-batches", source=SOURCE)
    def in_flight(pp: Count, vpp: Count, micro_batches: Count | Num, rank: Count) -> Num:
        """The warm-up and one more, in chunks, over the chunks of a stage."""
        return np.minimum(micro_batches * vpp, 2 * (pp - 1 - rank) + (vpp - 1) * pp + 1) / vpp

    def program(self, pp: int, vpp: int, micro_batches: int) -> Program:
        """Rounds of pp micro-batches a chunk; warm-up 2(pp - 1 - r) + (vpp - 1) pp on rank r (Megatron-LM's order)."""
        forwards = _rounds("F", range(vpp), pp, micro_batches)
        backwards = _rounds("B", range(vpp - 1, -1, -1), pp, micro_batches)
        warmups = (min(2 * (pp - 1 - rank) + (vpp - 1) * pp, len(forwards)) for rank in range(pp))
        return [alternate(forwards, backwards, warmup) for warmup in warmups]


def _rounds(kind: Kind, chunks: range, pp: int, micro_batches: int) -> list[Action]:
    """Each round takes pp micro-batches through all chunks, one chunk after the other."""
    return [
        Action(kind, first + i, chunk) for first in range(0, micro_batches, pp) for chunk in chunks for i in range(pp)
    ]
