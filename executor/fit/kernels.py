"""Kernel constants of a GPU profile from measured rows: the inverse of `planner.cost.kernels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from executor.fit.solve import Fit, Floats, Parameter, fit
from executor.measure.measurement import Measurement
from hwprofiles.curve import AttentionCurve, GroupedCurve, MatmulCurve
from hwprofiles.spec import Gpu
from planner.cost import kernels
from planner.precision import PRECISIONS

SHARE = (0.02, 1.0)
LAUNCH = (1e-8, 1e-2)


def column(rows: Sequence[Measurement], size: str) -> Floats:
    """One size of all rows [n]."""
    return np.array([row[size] for row in rows])


def seconds(rows: Sequence[Measurement]) -> list[float]:
    """The times [s]."""
    return [row.seconds for row in rows]


def bandwidth(rows: Sequence[Measurement], gpu: Gpu) -> Fit:
    """`bandwidth` [B/s] that a copy achieves and `launch` [s], of `copy` rows; `planner.cost.kernels.pointwise`."""
    volume = column(rows, "bytes")
    achieved = gpu.hbm_bandwidth * gpu.hbm_efficiency

    def predict(value: Mapping[str, float]) -> Floats:
        rated = replace(gpu, hbm_bandwidth=value["bandwidth"], hbm_efficiency=1.0)
        return np.asarray(kernels.pointwise(volume, value["launch"], rated))

    start = {"bandwidth": Parameter(achieved, 1e8, 1e14), "launch": Parameter(2e-6, *LAUNCH)}
    return fit(start, predict, seconds(rows))


def matmul(rows: Sequence[Measurement], dtype: str, gpu: Gpu) -> Fit:
    """`efficiency`, `k_half`, `mn_half`, `launch` of the matrix multiply at the peak of `gpu`."""
    m, n, k = (column(rows, size) for size in ("rows", "columns", "inner"))
    each = PRECISIONS[dtype].operand
    moved = each * (m * k + k * n) + PRECISIONS[dtype].value * m * n
    peak = gpu.peak[PRECISIONS[dtype].peak]

    def predict(value: Mapping[str, float]) -> Floats:
        return np.asarray(kernels.matmul(m, n, k, moved, peak, MatmulCurve(**value), gpu))

    known = gpu.matmul[dtype]
    start = {
        "efficiency": Parameter(known.efficiency, *SHARE),
        "k_half": Parameter(max(known.k_half, 0.1), 1e-2, 1e4),
        "mn_half": Parameter(max(known.mn_half, 0.1), 1e-2, 1e4),
        "launch": Parameter(known.launch, *LAUNCH),
    }
    return fit(start, predict, seconds(rows))


def grouped(rows: Sequence[Measurement], dtype: str, gpu: Gpu) -> Fit:
    """`efficiency`, `wave_half`, `launch` of the grouped multiply of experts."""
    groups, m, n, k = (column(rows, size) for size in ("groups", "rows", "columns", "inner"))
    each = PRECISIONS[dtype].operand
    moved = groups * (each * (m * k + k * n) + PRECISIONS[dtype].value * m * n)
    peak = gpu.peak[PRECISIONS[dtype].peak]

    def predict(value: Mapping[str, float]) -> Floats:
        return np.asarray(kernels.grouped_matmul(groups, m, n, k, moved, peak, GroupedCurve(**value), gpu))

    start = {
        "efficiency": Parameter(gpu.grouped.efficiency, *SHARE),
        "wave_half": Parameter(max(gpu.grouped.wave_half, 1e-3), 1e-4, 1e2),
        "launch": Parameter(gpu.grouped.launch, *LAUNCH),
    }
    return fit(start, predict, seconds(rows))


def attention(rows: Sequence[Measurement], dtype: str, gpu: Gpu) -> Fit:
    """`efficiency`, `seq_half`, `backward_rate` of causal attention; the cost of an exponential stays the profile's."""
    batch, heads, s, d = (column(rows, size) for size in ("batch", "heads", "seq_len", "head_dim"))
    behind = np.array([row.kind == "attention_backward" for row in rows])
    flop = batch * heads * 2.0 * s * s * d  # two products, the masked half left out
    base = PRECISIONS[dtype].base
    peak, launch = gpu.peak[base], gpu.matmul[base].launch

    def predict(value: Mapping[str, float]) -> Floats:
        curve = AttentionCurve(**{**value, "flop_per_exp": gpu.attention.flop_per_exp})
        rate = np.asarray(kernels.attention_rate(s, d, peak, curve))
        slower = np.where(behind, kernels.BACKWARD_FLOP / curve.backward_rate, 1.0)
        return np.asarray(launch + flop * slower / rate)

    start = {
        "efficiency": Parameter(gpu.attention.efficiency, *SHARE),
        "seq_half": Parameter(max(gpu.attention.seq_half, 1.0), 1.0, 1e4),
        "backward_rate": Parameter(gpu.attention.backward_rate, 0.1, 2.0),
    }
    return fit(start, predict, seconds(rows))
