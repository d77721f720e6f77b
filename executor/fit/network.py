"""The tiers of a network from measured collectives: the inverse of `planner.collectives`.

Groups that stay inside the scale-up domain fit the node, larger ones the fabric. A library that runs a reduce-scatter
as an all-reduce (gloo) is told from one that does not by which of the two comes closer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from executor.fit.solve import Fit, Parameter, fit
from executor.measure.measurement import Measurement
from hwprofiles import topology
from hwprofiles.spec import Fabric, Node, Tier
from planner.collectives.all_reduce import all_reduce
from planner.collectives.all_to_all import all_to_all
from planner.collectives.base import Group, path
from planner.collectives.point_to_point import point_to_point
from planner.collectives.ring import all_gather, reduce_scatter

SEND_ALL = 1e9  # copies a token asks for: so many that every rank gets its share, as in a plain all-to-all


@dataclass(frozen=True)
class Network:
    """The fitted node or fabric numbers, whether reduce-scatter runs as an all-reduce, and how good the fit is."""

    fit: Fit
    scatter_by_reduce: bool


def predict(row: Measurement, tiers: tuple[Tier, ...], *, scatter_by_reduce: bool) -> float:
    """Seconds of a collective by the planner's formula."""
    way = path(Group(int(row["ranks"]), int(row["stride"])), tiers)
    volume = row["bytes"]
    if row.kind == "all_gather":
        return float(all_gather(volume, way))
    if row.kind == "all_reduce" or (row.kind == "reduce_scatter" and scatter_by_reduce):
        return float(all_reduce(volume, way))
    if row.kind == "reduce_scatter":
        return float(reduce_scatter(volume, way))
    if row.kind == "all_to_all":
        return float(all_to_all(1.0, volume / row["ranks"], SEND_ALL, way))
    return float(point_to_point(volume, way))


def bus(row: Measurement) -> float:
    """Bytes that a rank sends over the seconds it took, the `busbw` of nccl-tests [B/s]."""
    size = row["ranks"]
    share = 1.0 if row.kind == "point_to_point" else (size - 1.0) / size
    return (2.0 if row.kind == "all_reduce" else 1.0) * share * row["bytes"] / row.seconds


def fit_node(rows: Sequence[Measurement], node: Node, fabric: Fabric) -> Network:
    """`scale_up_{bandwidth, latency, launch, fill}` of a node, from groups inside its domain (efficiency becomes 1)."""

    def tiers(value: Mapping[str, float], gpus: int) -> tuple[Tier, ...]:
        changed = replace(
            node,
            scale_up_bandwidth=value["bandwidth"],
            scale_up_efficiency=1.0,
            scale_up_latency=value["latency"],
            scale_up_launch=value["launch"],
            scale_up_fill=value["fill"],
        )
        return topology.tiers(changed, fabric, gpus)

    start = {
        "bandwidth": Parameter(_fastest(rows, node.scale_up_bandwidth), 1e6, 1e13),
        "latency": Parameter(max(node.scale_up_latency, 1e-8), 1e-9, 1.0),
        "launch": Parameter(max(node.scale_up_launch, 1e-8), 1e-9, 1.0),
        "fill": Parameter(max(node.scale_up_fill, 1.0), 1.0, 1e9),
    }
    return _best(rows, start, tiers)


def fit_fabric(rows: Sequence[Measurement], node: Node, fabric: Fabric) -> Network:
    """`efficiency`, `latency`, `launch`, `fill` of a fabric, from groups that leave the domain of `node`.

    The bandwidth of a tier is what the NICs let through; efficiency is the share of it that is achieved.
    """

    def tiers(value: Mapping[str, float], gpus: int) -> tuple[Tier, ...]:
        changed = replace(
            fabric,
            efficiency=value["efficiency"],
            latency=value["latency"],
            launch=value["launch"],
            fill=value["fill"],
        )
        return topology.tiers(node, changed, gpus)

    start = {
        "efficiency": Parameter(fabric.efficiency, 1e-3, 1.0),
        "latency": Parameter(max(fabric.latency, 1e-8), 1e-9, 1.0),
        "launch": Parameter(max(fabric.launch, 1e-8), 1e-9, 1.0),
        "fill": Parameter(max(fabric.fill, 1.0), 1.0, 1e9),
    }
    return _best(rows, start, tiers)


Tiered = Callable[[Mapping[str, float], int], tuple[Tier, ...]]


def _best(rows: Sequence[Measurement], start: Mapping[str, Parameter], tiers: Tiered) -> Network:
    """The better of the two readings of a reduce-scatter; its own ring when the rows can't tell."""
    times = [row.seconds for row in rows]
    found = []
    for by_reduce in (False, True):

        def all_of(value: Mapping[str, float], by_reduce: bool = by_reduce) -> list[float]:  # noqa: FBT001
            laid = {gpus: tiers(value, gpus) for gpus in {_span(row) for row in rows}}
            return [predict(row, laid[_span(row)], scatter_by_reduce=by_reduce) for row in rows]

        found.append(Network(fit(start, all_of, times), by_reduce))
    return min(found, key=lambda network: (round(network.fit.residual, 3), network.scatter_by_reduce))


def _span(row: Measurement) -> int:
    """Ranks from the first to behind the last of a group."""
    return int(row["ranks"] * row["stride"])


def _fastest(rows: Sequence[Measurement], otherwise: float) -> float:
    """The best bus bandwidth among the rows, where the fit starts."""
    found = [bus(row) for row in rows]
    return max(found, default=otherwise)
