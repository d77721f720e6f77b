"""Adafactor: a second moment kept as the means of rows and columns (Shazeer and Stern 2018, arXiv:1804.04235).

No first moment. A matrix keeps rows + columns values of fp32, a vector one each. The gradient is read three times:
for the means, for the norm that clips the update, for the update. Under tp each rank keeps the means of its own piece;
the sums of rows that cross ranks are left out (a vector a matrix). FLOP: square 2, means 2, factors 3, clipping 2,
step 2.
"""

from __future__ import annotations

from planner.optimizers.base import Elementwise, Matrixwise, Optimizer
from planner.precision import FP32
from planner.provenance import Fact

PASSES = 3.0

SHELF = (
    Optimizer(
        "adafactor",
        Elementwise(FP32, 11.0, PASSES),
        "Shazeer and Stern 2018, arXiv:1804.04235, algorithm 4 without momentum",
        Matrixwise(0.0, 11.0, PASSES, edges=FP32, tables=True),
        (
            Fact(
                "Adafactor matched Adam on WMT translation with update clipping and a growing decay rate",
                "Shazeer and Stern 2018, arXiv:1804.04235",
            ),
        ),
    ),
)
