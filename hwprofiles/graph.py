"""The network of a cluster as a graph: GPUs, scale-up switches, NICs, leaf, spine and core switches, capacities in B/s.

Meant for small instances: drawing a fabric, and holding the closed form of `hwprofiles.topology` to maximum flow.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import networkx as nx

from hwprofiles.spec import Fabric, Node
from hwprofiles.topology import Level, injection, levels

SWITCHES_PER_LEVEL = 4  # capacities are spread evenly over a level's switches, so their number changes nothing
Vertex = tuple[Any, ...]
Edge = tuple[Vertex, Vertex, float]


def build(node: Node, fabric: Fabric, gpus: int) -> nx.DiGraph[Vertex]:
    """The graph of `gpus` GPUs (whole nodes): both directions of each link, edge attribute `capacity` in B/s.

    A GPU is the vertex ("gpu", index).
    """
    network: nx.DiGraph[Vertex] = nx.DiGraph()
    network.add_nodes_from(("gpu", gpu) for gpu in range(gpus))
    edges: Iterable[Edge] = _torus(node, fabric, gpus) if fabric.kind == "torus" else _tree(node, fabric, gpus)
    for low, high, capacity in itertools.chain(_scale_up(node, gpus), edges):
        for one, other in ((low, high), (high, low)):
            before = network.get_edge_data(one, other, {"capacity": 0.0})["capacity"]
            network.add_edge(one, other, capacity=before + capacity)
    return network


def crossing(network: nx.DiGraph[Vertex], senders: Iterable[int], receivers: Iterable[int]) -> float:
    """Maximum flow in B/s from one set of GPUs to another when all of them send at once."""
    probe = network.copy()
    for gpu in senders:
        probe.add_edge(("source",), ("gpu", gpu))
    for gpu in receivers:
        probe.add_edge(("gpu", gpu), ("sink",))
    return float(nx.maximum_flow_value(probe, ("source",), ("sink",)))


def _scale_up(node: Node, gpus: int) -> Iterator[Edge]:
    for gpu in range(gpus):
        yield ("gpu", gpu), ("scale-up", gpu // node.scale_up_domain), node.scale_up_bandwidth


def _tree(node: Node, fabric: Fabric, gpus: int) -> Iterator[Edge]:
    """NICs under switches, level by level; a switch spreads its uplinks over all switches above it."""
    above = levels(node, fabric)
    if not above:
        return
    lanes = _lanes(node, fabric)
    for host, nic in itertools.product(range(gpus // node.gpus), range(node.nics)):
        gpu = host * node.gpus + nic * node.gpus // node.nics
        vertex = ("nic", host, nic)
        # With fewer NICs than GPUs the neighbours reach theirs through the host's PCIe switch, at the NIC's rate.
        for reach in range(max(1, node.gpus // node.nics)):
            yield ("gpu", gpu + reach), vertex, node.nic_bandwidth
        yield vertex, _switch(above[0], gpu, lanes[nic], 0), node.nic_bandwidth
    for lane in sorted(set(lanes)):
        share = injection(node, fabric) * lanes.count(lane) / node.nics
        yield from _uplinks(gpus, above, share, lane, apart=fabric.kind == "planes")


def _lanes(node: Node, fabric: Fabric) -> list[int]:
    """Which leaf of its group each NIC of a node is on: its own rail or plane, or the one top-of-rack switch."""
    if fabric.kind == "planes":
        return [nic % int(fabric.parameters["planes"]) for nic in range(node.nics)]
    return list(range(node.nics)) if fabric.kind == "rail" else [0] * node.nics


def _uplinks(gpus: int, above: tuple[Level, ...], share: float, lane: int, *, apart: bool) -> Iterator[Edge]:
    """The links above one leaf lane that carries `share` B/s of each GPU; lanes `apart` (planes) never meet."""
    joint = lane if apart else -1
    for rank, (low, high) in enumerate(itertools.pairwise(above)):
        share /= low.uplink
        size = low.size or gpus
        switches = 1 if rank == 0 else SWITCHES_PER_LEVEL
        capacity = size * share / switches / SWITCHES_PER_LEVEL
        for first in range(0, gpus, size):
            for one, other in itertools.product(range(switches), range(SWITCHES_PER_LEVEL)):
                lower = _switch(low, first, lane if rank == 0 else joint, one)
                yield lower, _switch(high, first, joint, other), capacity


def _switch(level: Level, gpu: int, lane: int, index: int) -> Vertex:
    return level.name, gpu // level.size if level.size else 0, lane, index


def _torus(node: Node, fabric: Fabric, gpus: int) -> Iterator[Edge]:
    """Cubes in a row, each joined to its two neighbours of three dimensions by the links of its faces."""
    side = int(fabric.parameters["cube_side"])
    cubes = gpus // side**3
    face = side * side * node.nic_bandwidth
    for cube, inside in itertools.product(range(cubes), range(side**3)):
        yield ("gpu", cube * side**3 + inside), ("faces", cube), node.nic_bandwidth * 6
    for cube, _dimension in itertools.product(range(cubes), range(3)):
        yield ("faces", cube), ("faces", (cube + 1) % cubes), face
