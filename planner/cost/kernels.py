"""Kernel times on one GPU: dense and grouped matrix multiply, attention, memory-bound work.

Each is a roofline with a shape-dependent efficiency; the constants are the fitted curves of the GPU profile.
"""

from __future__ import annotations

import numpy as np

from hwprofiles.curve import AttentionCurve, GroupedCurve, MatmulCurve
from hwprofiles.spec import Gpu
from planner.formula import Num, formula

TILE_ROWS = 128  # output tile of the grouped kernels that the wave term counts (CUTLASS 128 x 256)
TILE_COLUMNS = 256
BACKWARD_FLOP = 2.5  # attention backward recomputes the scores: five products for two (Dao 2023)


@formula(unit="s", source="Williams 2009 (roofline), joined smoothly: the fourth root of the sum of fourth powers")
def roofline(compute: Num, memory: Num) -> Num:
    """Time of work that needs `compute` [s] of arithmetic and `memory` [s] of traffic, partly at once."""
    total: Num = np.sqrt(np.sqrt(np.square(np.square(compute)) + np.square(np.square(memory))))
    return total


@formula(unit="s", source="bytes over the achieved HBM bandwidth")
def traffic(volume: Num, gpu: Gpu) -> Num:
    """Time to move `volume` [B] through HBM."""
    return volume / (gpu.hbm_efficiency * gpu.hbm_bandwidth)


@formula(
    unit="s", source="2 m n k FLOP; prologue (1 + k0/k) and edge (1 + d0/m)(1 + d0/n) losses, fitted per GPU and type"
)
def matmul(rows: Num, columns: Num, inner: Num, moved: Num, peak: float, curve: MatmulCurve, gpu: Gpu) -> Num:
    """One product rows × inner by inner × columns that moves `moved` [B]; `peak` in FLOP/s."""
    edge = (1.0 + curve.k_half / inner) * (1.0 + curve.mn_half / rows) * (1.0 + curve.mn_half / columns)
    compute = 2.0 * rows * columns * inner / (curve.efficiency * peak) * edge
    return curve.launch + roofline(compute, traffic(moved, gpu))


@formula(unit="s", source="grouped GEMM: efficiency falls with the waves of 128 x 256 tiles, fitted per GPU")
def grouped_matmul(
    groups: Num, rows: Num, columns: Num, inner: Num, moved: Num, peak: float, curve: GroupedCurve, gpu: Gpu
) -> Num:
    """`groups` products rows × inner by inner × columns in one kernel that moves `moved` [B]."""
    waves = groups * rows * columns / (TILE_ROWS * TILE_COLUMNS * gpu.sm_count)
    compute = 2.0 * groups * rows * columns * inner / (curve.efficiency * peak) * (1.0 + curve.wave_half / waves)
    return curve.launch + roofline(compute, traffic(moved, gpu))


@formula(unit="FLOP/s", source="FlashAttention 2-4: tensor rate, softmax exponential, saturation with the sequence")
def attention_rate(seq_len: Num, head_dim: Num, peak: float, curve: AttentionCurve) -> Num:
    """Forward rate of a fused attention kernel."""
    per_flop = 1.0 / curve.efficiency + curve.flop_per_exp / head_dim
    return peak / per_flop / (1.0 + curve.seq_half / seq_len)


@formula(unit="s", source="bytes over achieved HBM bandwidth, plus the floor of one kernel")
def pointwise(volume: Num, launch: float, gpu: Gpu) -> Num:
    """One memory-bound kernel that moves `volume` [B]."""
    return launch + traffic(volume, gpu)
