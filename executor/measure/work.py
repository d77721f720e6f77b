"""What a rank of the pool is asked to measure: whole functions, picklable by name, that return rows."""

from __future__ import annotations

from executor.measure import collectives, kernels
from executor.measure.kernels import Sweep
from executor.measure.measurement import Measurement


def kernel_rows(sweep: Sweep, dtype: str, device: str, name: str) -> list[Measurement]:
    """All rows of a sweep."""
    return list(kernels.kernels(sweep, dtype, device, name))


def collective_rows(sizes: tuple[int, ...], device: str, name: str) -> list[Measurement]:
    """Rows of all collectives, the same on each rank."""
    return list(collectives.collectives(sizes, device, name))
