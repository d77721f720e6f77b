"""The hardware of a published run as a cluster of the catalogue, with the run's own NIC rate where it states one."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from hwprofiles import load
from hwprofiles.spec import Cluster
from planner.errors import InputError
from planner.validate.read import Row
from planner.validate.refusal import Refused

CLUSTERS = (
    ("H100-SXM-96GB", "h100-grand-teton-500w"),
    ("H100", "h100-superpod"),
    ("H800", "deepseek-h800"),
    ("H200", "h200-superpod"),
    ("H20", "h20-hgx"),
    ("GB200", "gb200-nvl72"),
    ("GB300", "gb300-nvl72"),
    ("B200", "b200-superpod"),
    ("B300", "b300-superpod"),
    ("A100-SXM-40GB", "a100-40gb-superpod"),
    ("A100", "a100-superpod"),
    ("A800", "a800-hgx"),
    ("MI300X", "mi300x"),
    ("MI325X", "mi325x"),
    ("MI350X", "mi350x"),
    ("MI355X", "mi355x"),
)
GIGABIT, GIGABYTE = 1e9 / 8, 1e9
_COUNTED = re.compile(r"(\d+)\s*x\s*[^,;]*?(\d+)\s*(Gb/s|GB/s)")
_PLAIN = re.compile(r"(\d+)\s*(Gb/s|GB/s)[^,;]*?per (GPU|node)")
OMNI_PATH = 100 * GIGABIT  # one Omni-Path 100 link


def cluster(row: Row) -> Cluster:
    """The cluster of a row; Refused when the GPU is not in the catalogue or the size does not fit it."""
    stated = row["hardware"]
    gpu, gpus = str(stated.get("gpu") or ""), stated.get("num_gpus")
    if not isinstance(gpus, int) or gpus < 1:
        raise Refused("the number of GPUs is not stated")
    name = next((name for prefix, name in CLUSTERS if gpu.startswith(prefix)), None)
    if name is None:
        raise Refused(f"no profile of the GPU {gpu or '(not stated)'}")
    rate = nic_rate(str(stated.get("internode") or ""), stated.get("gpus_per_node") or 8)
    return _cluster(name, gpus, rate)


@cache
def _cluster(name: str, gpus: int, rate: float | None) -> Cluster:
    try:
        found = load.cluster(name, gpus)
    except InputError as error:
        raise Refused(f"{gpus} GPUs are no whole number of nodes: {error}") from None
    if rate is None:
        return found
    own = found.tiers[1].bandwidth if len(found.tiers) > 1 else rate
    outer = tuple(replace(tier, bandwidth=tier.bandwidth * rate / own) for tier in found.tiers[1:])
    return replace(found, tiers=(found.tiers[0], *outer))


def nic_rate(text: str, gpus_per_node: int) -> float | None:
    """Bytes per second and GPU out of a node, one direction, as a source words it; None when it is silent."""
    if "Omni-Path" in text:
        return 4 * OMNI_PATH / gpus_per_node
    counted = _COUNTED.search(text)
    if counted:
        return int(counted[1]) * int(counted[2]) * _unit(counted[3]) / gpus_per_node
    plain = _PLAIN.search(text)
    if plain:
        share = gpus_per_node if plain[3] == "node" else 1
        return int(plain[1]) * _unit(plain[2]) / share
    return None


def _unit(text: str) -> float:
    return GIGABIT if text == "Gb/s" else GIGABYTE
