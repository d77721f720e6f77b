"""All-to-all of tokens to experts: each tier carries the distinct copies that cross it.

A token that goes to `topk` experts of a group is sent once to each rank that holds one of them, and once to each domain
when the dispatcher deduplicates (the copy is fanned out inside the domain). Source: DeepEP (deepseek-ai/DeepEP),
DeepSeek-V3 report sec. 3.2.2.
"""

from __future__ import annotations

import numpy as np

from planner.collectives.base import Path
from planner.formula import Num, formula


@formula(unit="copies/token", source="expected distinct boxes hit by k uniform draws: n (1 - (1 - 1/n)^k)")
def distinct(boxes: Num, topk: float) -> Num:
    """Expected number of distinct boxes (ranks, nodes) that the experts of one token lie in."""
    return boxes * (1.0 - np.power(1.0 - 1.0 / boxes, topk))


@formula(unit="s", source="DeepEP: per-tier bytes over per-tier bandwidth, the slowest tier decides")
def all_to_all(
    tokens: Num, width: float, topk: float, way: Path, copies: float | None = None, *, merged: bool = True
) -> Num:
    """Dispatch (or combine) of `tokens` per rank of `width` [B], deduplicated by domain where `merged`; time [s].

    Merged, tier 0 carries a copy to each distinct rank, the others a copy to each distinct scale-up domain beyond them;
    the copies that stay below a tier are free there. `copies` of each token that leave the domain, where they are
    known, stand for the expected ones. Not merged (NCCL's plain all-to-all), every copy travels by itself. 0 for a
    group of one.
    """
    size = way.group.size
    inside: Num = 1.0
    slowest: Num = 0.0
    boxes: Num = size * 1.0
    for level, (tier, within) in enumerate(zip(way.tiers, way.members, strict=True)):
        boxes = size / inside if level == 1 else boxes
        sent = distinct(boxes, topk) if merged else topk
        leaving = sent * (1.0 - inside / size) * (inside < size)
        if copies is not None and level >= 1:
            leaving = copies * (inside < size) if level == 1 else np.minimum(leaving, copies)
        slowest = np.maximum(slowest, tokens * width * leaving / (tier.bandwidth * tier.efficiency))
        inside = within
    return way.launch + way.latency * np.log2(size * 1.0) + slowest
