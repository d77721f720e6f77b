"""ZB-H1: the backward pass is split in two, and the weight half fills the bubbles."""

from __future__ import annotations

from typing import final

import numpy as np

from planner.formula import Count, Num, formula
from planner.schedules.base import MICRO_BATCH, PIPELINED, WHOLE_STAGE, Action, Program, Schedule, alternate, in_order

SOURCE = "Qi 2023 (Zero Bubble), arXiv:2401.10241, section 2.1"


@final
class ZeroBubbleH1(Schedule):
    """1F1B whose weight gradients wait: a third of its bubble when F, B and W take the same time.

    Every rank holds what the first rank of 1F1B holds, since activations stay until their weight gradient is done.
    """

    name = "zb-h1"
    source = SOURCE
    splits_backward = True
    legal = (MICRO_BATCH, PIPELINED, WHOLE_STAGE)

    @staticmethod
    @formula(unit="s", source=f"{SOURCE}; small steps and F other than B: our derivation, held by the replay")
    def bubble(pp: Count, vpp: Count, micro_batches: Count | Num, forward: Num, backward: Num) -> Num:
        """The longer of F and B fills or drains pp - 1 stages; missing micro-batches leave the shorter one too."""
        half = backward / 2
        short = pp - np.minimum(micro_batches, pp)
        return (pp - 1) * np.maximum(forward, half) + short * np.minimum(forward, half)

    @staticmethod
    @formula(unit="micro-batches", source=SOURCE)
    def in_flight(pp: Count, vpp: Count, micro_batches: Count | Num, rank: Count) -> Num:
        """As many as there are stages, on every rank."""
        return 1.0 * np.minimum(micro_batches, pp) + 0 * rank

    def program(self, pp: int, vpp: int, micro_batches: int) -> Program:
        """Rank r runs 1F1B, with each weight gradient put off by r backward passes."""
        forwards = in_order("F", micro_batches)
        backwards = in_order("B", micro_batches)
        ranks = range(pp)
        plain = (alternate(forwards, backwards, min(pp - 1 - rank, micro_batches)) for rank in ranks)
        return [_with_weights(actions, rank, micro_batches) for rank, actions in zip(ranks, plain, strict=True)]


def _with_weights(actions: list[Action], delay: int, micro_batches: int) -> list[Action]:
    """Each W follows `delay` backward passes after its own, those that are left at the end."""
    order: list[Action] = []
    for action in actions:
        order.append(action)
        if action.kind == "B" and action.micro_batch >= delay:
            order.append(Action("W", action.micro_batch - delay, action.chunk))
    left = range(max(micro_batches - delay, 0), micro_batches)
    return order + [Action("W", i, 0) for i in left]
