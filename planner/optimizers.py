"""Optimizers: bytes of state kept per parameter and bytes moved by one update."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Optimizer:
    """`state` [B/parameter] beside weights and gradients (fp32 master included); `traffic` [B/parameter] of a step."""

    name: str
    state: float
    traffic: float
    source: str


OPTIMIZERS: dict[str, Optimizer] = {
    optimizer.name: optimizer
    for optimizer in (
        Optimizer("adam", 12.0, 30.0, "Rajbhandari 2020 (ZeRO): fp32 master and two moments; reads 16, writes 14"),
        Optimizer("adam-bf16", 8.0, 22.0, "DeepSeek-V3 report 3.3.3: fp32 master, bf16 moments; reads 12, writes 10"),
        Optimizer("sgd", 8.0, 22.0, "Sutskever 2013: fp32 master and one momentum; reads 12, writes 10"),
    )
}
