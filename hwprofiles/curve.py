"""Efficiency curves: how far below its peak a kernel or a link runs, as a few fitted numbers with a meaning.

The numbers live in the profiles (with the data they were fitted on and the residual); the formulas that use
them live in the planner.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MatmulCurve:
    """Dense matrix multiply: launch + |compute, bytes|_4.

    `efficiency` is the fraction of peak FLOP/s at infinite size; `k_half` [elements] the inner dimension at which
    a tile's prologue and epilogue cost as much as its work; `mn_half` [elements] the same for the output edges;
    `launch` [s] the floor of one kernel.
    """

    efficiency: float
    k_half: float
    mn_half: float
    launch: float


@dataclass(frozen=True)
class AttentionCurve:
    """Fused causal attention: `efficiency` of the tensor peak before the softmax exponential is paid,
    `seq_half` [tokens] the sequence at which half of the asymptotic rate is reached,
    `flop_per_exp` the tensor FLOP that fit into the time of one exponential,
    `backward_rate` the backward FLOP rate over the forward one.
    """

    efficiency: float
    seq_half: float
    flop_per_exp: float
    backward_rate: float


@dataclass(frozen=True)
class GroupedCurve:
    """Grouped expert GEMM: `efficiency` of peak at many full waves of tiles; `wave_half` [waves] where half is lost;
    `launch` [s] the floor of one grouped kernel.
    """

    efficiency: float
    wave_half: float
    launch: float
