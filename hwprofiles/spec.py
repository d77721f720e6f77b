"""The frozen facts of a cluster: Gpu, Node, Tier, Fabric, Cluster. SI units (FLOP/s, B, B/s, s, W, USD)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hwprofiles.curve import AttentionCurve, GroupedCurve, MatmulCurve


@dataclass(frozen=True)
class Gpu:
    """One accelerator. `peak` maps a number type (fp32, tf32, bf16, fp8, fp4) to dense FLOP/s (no sparsity).

    `sparse` is the peak of multiplies by a matrix with two zeros in every four weights, counted as if dense; empty when
    the GPU has no such units.

    `link_bandwidth` is the scale-up link (NVLink, xGMI, ICI), one direction, B/s; `price` is USD per GPU-second on
    demand; `reserve` [B] is the memory that the driver and the context take; `sources` cites each number by field.
    """

    name: str
    vendor: str
    generation: str
    peak: Mapping[str, float]
    hbm_capacity: float
    hbm_bandwidth: float
    hbm_efficiency: float
    link_bandwidth: float
    pcie_bandwidth: float
    sm_count: int
    tdp: float
    price: float
    reserve: float
    matmul: Mapping[str, MatmulCurve]
    grouped: GroupedCurve
    attention: AttentionCurve
    sparse: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Node:
    """One server (or tray): GPUs, the scale-up domain they share, the NICs that leave it.

    `scale_up_domain` is the number of GPUs in one scale-up domain (8, or 72 across trays); `nic_bandwidth` is B/s one
    direction of one NIC; `power` [W] is the whole node under load without its GPUs. `host` is the make of the CPU that
    launches the kernels.
    """

    name: str
    gpu: str
    gpus: int
    scale_up_domain: int
    scale_up_bandwidth: float
    scale_up_latency: float
    scale_up_launch: float
    scale_up_efficiency: float
    scale_up_fill: float
    nics: int
    nic_bandwidth: float
    power: float
    host: str = "x86"
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Tier:
    """One level of the network: domains of `size` GPUs inside which traffic needs no higher level.

    `bandwidth` [B/s] is what each GPU can send across this tier, one direction, when every GPU of the domain sends at
    once: oversubscription is already in it. `efficiency` is the achieved share of it in long collectives,
    `latency` [s] one hop, `launch` [s] the floor of one collective, `fill` [B] the pipeline fill (the bandwidth term
    grows by sqrt(fill / bytes)). `lockstep`: a ring that crosses this tier pays its latency in every step, not only
    where it crosses (ranks that share cores).
    """

    name: str
    size: int
    bandwidth: float
    latency: float
    oversubscription: float
    efficiency: float
    launch: float
    fill: float
    lockstep: bool = False


@dataclass(frozen=True)
class Fabric:
    """The scale-out network as the parameters of a generator (`kind`), see `hwprofiles.topology`."""

    name: str
    kind: str
    parameters: Mapping[str, float]
    latency: float
    launch: float
    efficiency: float
    fill: float
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Cluster:
    """Nodes of one kind on one fabric. `tiers` go from the innermost (scale-up) outwards and end at `gpus`.

    `price` is USD per GPU-second (the cluster's own when stated, else its GPU's); `pue` is facility over IT power.
    """

    name: str
    gpu: Gpu
    node: Node
    fabric: Fabric
    gpus: int
    tiers: tuple[Tier, ...]
    price: float
    pue: float
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
