"""From the parameters of a fabric to the tiers of a cluster, in closed form (`hwprofiles.graph` draws the network).

A domain of one level leaves it through its uplinks; the share of a GPU of those uplinks is the bandwidth of the next
tier. By symmetry that needs no graph: link rates and oversubscriptions are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwprofiles.faults import Fault, InputError
from hwprofiles.spec import Fabric, Node, Tier

TIME_SLICES = "time slices"
LINKS_PER_CHIP = 6  # a 3D torus: two neighbours in each of three dimensions


@dataclass(frozen=True)
class Level:
    """Domains of `size` GPUs (None: all of them) under switches whose uplinks carry 1/`uplink` of their downlinks."""

    name: str
    size: int | None
    uplink: float = 1.0


def _rail(node: Node, p: dict[str, float]) -> tuple[Level, ...]:
    """Rail-optimised fat tree: the r-th NIC of each node of a group on leaf r, spines per pod, cores above."""
    return (
        Level("rail group", int(p["group_gpus"]), p["leaf_oversubscription"]),
        Level("pod", int(p["pod_gpus"]), p["spine_oversubscription"]),
        Level("core", None),
    )


def _clos(node: Node, p: dict[str, float]) -> tuple[Level, ...]:
    """Three-tier Clos: all NICs of a rack on its top-of-rack switch, cluster switches per pod, aggregation above."""
    return (
        Level("rack", int(p["rack_gpus"]), p["rack_oversubscription"]),
        Level("pod", int(p["pod_gpus"]), p["pod_oversubscription"]),
        Level("aggregation", None),
    )


def _planes(node: Node, p: dict[str, float]) -> tuple[Level, ...]:
    """Multi-plane two-layer fat tree: the NICs of a node lie in separate networks that meet only inside nodes."""
    return Level("leaf group", int(p["group_gpus"])), Level("planes", None)


def _leaf_spine(node: Node, p: dict[str, float]) -> tuple[Level, ...]:
    """Plain leaf and spine: all NICs of a group of nodes on one leaf."""
    return Level("leaf", int(p["leaf_gpus"]), p["oversubscription"]), Level("spine", None)


def _torus(node: Node, p: dict[str, float]) -> tuple[Level, ...]:
    """3D torus of cubes (the scale-up domain): what leaves a cube crosses one of its faces."""
    return (Level("torus", None),)


def _time_slices(node: Node, p: dict[str, float]) -> tuple[Level, ...]:
    """One machine with more ranks than cores: what exceeds the cores waits for its turn of the scheduler."""
    return (Level(TIME_SLICES, None),)


def _single(node: Node, p: dict[str, float]) -> tuple[Level, ...]:
    """No network: one scale-up domain."""
    return ()


GENERATORS: dict[str, Callable[[Node, dict[str, float]], tuple[Level, ...]]] = {
    "rail": _rail,
    "clos": _clos,
    "planes": _planes,
    "leaf-spine": _leaf_spine,
    "torus": _torus,
    "time-slices": _time_slices,
    "single": _single,
}


def levels(node: Node, fabric: Fabric) -> tuple[Level, ...]:
    """The levels above the scale-up domain, innermost first; those no larger than the domain are left out."""
    found = GENERATORS[fabric.kind](node, dict(fabric.parameters))
    return tuple(level for level in found if level.size is None or level.size > node.scale_up_domain)


def injection(node: Node, fabric: Fabric) -> float:
    """B/s that each GPU can send out of its scale-up domain, one direction, when all do."""
    if fabric.kind == "torus":
        # A cube of side n has 6 n² outward links for its n³ chips.
        return LINKS_PER_CHIP * node.nic_bandwidth / fabric.parameters["cube_side"]
    return node.nics * node.nic_bandwidth / node.gpus


def tiers(node: Node, fabric: Fabric, gpus: int) -> tuple[Tier, ...]:
    """The tiers of `gpus` GPUs, innermost (scale-up) first; the last one holds all of them.

    Raises InputError when the fabric can't join that many (no network beyond one scale-up domain).
    """
    size = min(node.scale_up_domain, gpus)
    found = [
        Tier(
            "scale-up",
            size,
            node.scale_up_bandwidth,
            node.scale_up_latency,
            1.0,
            node.scale_up_efficiency,
            node.scale_up_launch,
            node.scale_up_fill,
        )
    ]
    squeeze, latency = 1.0, fabric.latency
    for level in levels(node, fabric):
        if found[-1].size >= gpus:
            break
        size = gpus if level.size is None else min(level.size, gpus)
        bandwidth = min(injection(node, fabric) / squeeze, found[-1].bandwidth)
        found.append(
            Tier(
                level.name,
                size,
                bandwidth,
                latency,
                squeeze,
                fabric.efficiency,
                fabric.launch,
                fabric.fill,
                lockstep=level.name == TIME_SLICES,
            )
        )
        squeeze *= level.uplink
        latency += fabric.parameters.get("hop_latency", 0.0)
    if found[-1].size < gpus:
        raise InputError(Fault(f"{fabric.name}:gpus", f"at most {size} GPUs without a network", gpus, str(size)))
    return tuple(found)
