"""Groups of ranks on the tiers of a cluster: who is near whom, and what the slowest boundary lets through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwprofiles.spec import Tier
from planner.formula import Count, Num

Tiers = tuple[Tier, ...]


@dataclass(frozen=True)
class Group:
    """`size` ranks, `stride` apart in rank order (numbers, or arrays [n]); all such groups communicate at once."""

    size: Count | Num
    stride: Count | Num


@dataclass(frozen=True)
class Path:
    """What a group meets on its tiers.

    `members[k]` ranks inside one domain of tier k; `hops` [s] the latency of one walk around the ring, each boundary
    crossed once by each domain below it; `rate` [B/s] what a ring carries and `flow` [B/s] what one point-to-point flow
    carries over the worst boundary; `launch` [s], `latency` [s] and `fill` [B] of the outermost tier crossed, 0 for a
    group of one; `lockstep` whether that tier makes every step of a ring wait.
    """

    group: Group
    tiers: Tiers
    members: tuple[Num, ...]
    hops: Num
    rate: Num
    flow: Num
    launch: Num
    latency: Num
    fill: Num
    lockstep: Any


def members(group: Group, domain: int) -> Num:
    """Ranks of one group inside one aligned domain of `domain` GPUs (1 when the group's neighbours lie outside)."""
    room = np.floor(np.maximum(domain / group.stride, 1.0))
    return group.size / np.ceil(group.size / room)


def path(group: Group, tiers: Tiers) -> Path:
    """Lay the group on the tiers.

    A boundary of tier k is crossed once per ring, and one ring runs on the link of each member below it, so a ring
    finds members · bandwidth there (NVLink, or as many NICs as the node has members). A point-to-point flow has its own
    link alone.
    """
    inside: Num = 1.0
    hops: Num = 0.0
    rate: Num = np.inf
    flow: Num = np.inf
    launch: Num = 0.0
    latency: Num = 0.0
    fill: Num = 0.0
    lockstep: Any = False
    link = np.inf
    found = []
    for level, tier in enumerate(tiers):
        within = members(group, tier.size)
        crossed = inside < group.size
        own = tier.bandwidth * tier.efficiency
        link = own if level <= 1 else link
        rate = np.where(crossed, np.minimum(rate, inside * own), rate)
        flow = np.where(crossed, np.minimum(flow, np.minimum(link, inside * own)), flow)
        hops = hops + (group.size / inside - group.size / within) * tier.latency
        if tier.lockstep:
            hops = np.where(crossed, (group.size - 1) * tier.latency, hops)
            lockstep = lockstep | crossed
        launch = np.where(crossed, tier.launch, launch)
        latency = np.where(crossed, tier.latency, latency)
        fill = np.where(crossed, tier.fill, fill)
        found.append(within)
        inside = within
    return Path(group, tiers, tuple(found), hops, rate, flow, launch, latency, fill, lockstep)


def depth(way: Path) -> Num:
    """Latency [s] from leaf to root of a binary tree laid over the tiers."""
    inside: Num = 1.0
    total: Num = 0.0
    for tier, within in zip(way.tiers, way.members, strict=True):
        total = total + np.ceil(np.log2(within / inside)) * tier.latency
        inside = within
    return total


def wire(volume: Num, way: Path) -> Num:
    """Time [s] of `volume` [B] per rank on the ring; the pipeline fill adds sqrt(fill · volume) bytes."""
    total: Num = (volume + np.sqrt(way.fill * volume)) / way.rate
    return total
