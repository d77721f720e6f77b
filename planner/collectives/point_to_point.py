"""Point-to-point transfer between neighbours of a group (pipeline stages, ring attention steps)."""

from __future__ import annotations

from planner.collectives.base import Path
from planner.formula import Num, formula


@formula(unit="s", source="Hockney 1994: latency + bytes / bandwidth, at the worst boundary of the group")
def point_to_point(volume: Num, way: Path) -> Num:
    """One transfer of `volume` [B] to the next rank of the group; 0 for a group of one."""
    return way.launch + way.latency + volume * (way.group.size > 1) / way.flow
