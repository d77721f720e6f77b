"""Muon: one momentum a weight matrix, orthogonalized by Newton-Schulz (Jordan 2024; Liu 2025, arXiv:2502.16982).

Matrices of attention, feed-forward blocks, experts and routers; embedding, output matrix and vectors use AdamW.
Matrices are as the layers fuse them (q, k, v together; gate and up together). FLOP a parameter beside Newton-Schulz:
momentum 2, Nesterov 2, decay 1, scaled step 2. Distributed (section 2.3): a matrix that shards of ZeRO or ranks of tp
have pieces of is gathered in bf16, and each rank multiplies those that its shard touches.
"""

from __future__ import annotations

from planner.optimizers.base import Elementwise, Matrixwise, Optimizer
from planner.precision import BF16, FP32
from planner.provenance import Fact

ITERATIONS = 5
IN_AND_OUT = 2.0 * BF16  # the matrix written for Newton-Schulz and its result read, in bf16

SHELF = (
    Optimizer(
        "muon",
        Elementwise(2.0 * FP32, 14.0),
        "Liu 2025, arXiv:2502.16982: one fp32 momentum; five iterations of Newton-Schulz; AdamW for the rest",
        Matrixwise(FP32, 7.0, moved=IN_AND_OUT, iterations=ITERATIONS),
        (
            Fact(
                "Muon with weight decay needed about half of AdamW's training FLOP in compute-optimal runs, and "
                "trained Moonlight, a mixture of 16B parameters, on 5.7T tokens",
                "Liu 2025, arXiv:2502.16982",
            ),
        ),
    ),
)
