"""What `plan calibrate` times on a CPU core and on a GPU, in a hurry and in full."""

from __future__ import annotations

from itertools import product

from executor.measure.kernels import Sweep

KIBI, MEBI = 2**10, 2**20

_CPU_QUICK = Sweep(
    matmul=(
        *product((128, 512), (64, 256), (64, 256)),
        *((256, n, k) for n, k in ((768, 256), (256, 768), (1024, 384), (512, 512))),
        (1024, 256, 256),
        (1024, 1024, 1024),
    ),
    grouped=((4, 64, 256, 256), (8, 64, 768, 256), (8, 64, 256, 384), (4, 128, 1024, 384), (16, 32, 384, 192)),
    attention=((1, 4, 128, 64), (2, 4, 128, 32), (1, 4, 256, 64), (2, 2, 256, 64), (1, 4, 512, 64), (1, 8, 1024, 32)),
    memory=(8 * MEBI, 16 * MEBI, 32 * MEBI),
    budget=0.03,
)
_CPU_FULL = Sweep(
    matmul=(
        *product((64, 128, 256, 512, 1024), (64, 128, 256, 512), (64, 128, 256, 512)),
        *((m, n, k) for m in (256, 1024) for n, k in ((768, 256), (256, 768), (1536, 512), (512, 1536))),
        (1024, 1024, 1024),
        (2048, 1024, 512),
    ),
    grouped=tuple(
        (g, m, n, k) for g in (2, 8, 16) for m in (16, 64, 256) for n, k in ((192, 256), (768, 256), (256, 384))
    ),
    attention=tuple((b, h, s, d) for b, h in ((1, 4), (2, 4), (1, 8)) for s in (64, 128, 256, 512) for d in (32, 64)),
    memory=(8 * MEBI, 16 * MEBI, 32 * MEBI, 64 * MEBI),
    budget=0.06,
)
_GPU_QUICK = Sweep(
    matmul=tuple(
        (m, n, k) for m in (1024, 4096, 8192) for n, k in ((1024, 1024), (4096, 4096), (8192, 2048), (2048, 8192))
    ),
    grouped=tuple((g, m, n, k) for g in (8, 32) for m in (128, 1024) for n, k in ((2048, 1024), (4096, 2048))),
    attention=((1, 16, 1024, 128), (2, 16, 2048, 128), (1, 32, 4096, 128), (1, 16, 8192, 128), (2, 32, 2048, 64)),
    memory=(64 * MEBI, 256 * MEBI, 1024 * MEBI),
    budget=0.05,
)
_GPU_FULL = Sweep(
    matmul=tuple(product((512, 1024, 2048, 4096, 8192, 16384), (1024, 2048, 4096, 8192), (1024, 2048, 4096, 8192))),
    grouped=tuple(product((4, 8, 32, 64), (64, 256, 1024), (2048, 4096), (1024, 2048))),
    attention=tuple((b, h, s, d) for b, h in ((1, 16), (2, 32)) for s in (1024, 2048, 4096, 8192) for d in (64, 128)),
    memory=(16 * MEBI, 64 * MEBI, 256 * MEBI, 1024 * MEBI),
    budget=0.2,
)


def sweep(device: str, *, quick: bool) -> Sweep:
    """The kernels to time."""
    if device == "cuda":
        return _GPU_QUICK if quick else _GPU_FULL
    return _CPU_QUICK if quick else _CPU_FULL


def dtypes(device: str, *, quick: bool) -> tuple[str, ...]:
    """Number types, the first of which the steps are trained in."""
    if device == "cuda":
        return ("bf16",) if quick else ("bf16", "fp32")
    return ("fp32",) if quick else ("fp32", "bf16")


def volumes(device: str, *, quick: bool) -> tuple[int, ...]:
    """Bytes of the collectives."""
    if device == "cuda":
        return tuple(KIBI << shift for shift in ((2, 10, 14, 18, 20) if quick else range(0, 21, 2)))
    return (KIBI, 256 * KIBI, 4 * MEBI) if quick else (KIBI, 32 * KIBI, 256 * KIBI, MEBI, 4 * MEBI, 16 * MEBI)
