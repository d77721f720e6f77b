"""Batch norm in data parallelism: the samples of all ranks of dp count together, as in one process that has them all.

Micro-batch i of a rank meets micro-batch i of the others: so does one process with micro-batches dp times as large.
"""

from __future__ import annotations

from functools import partial

from executor.layers.batch_norm import BatchNorm, Joined
from executor.mesh import Meshes
from executor.model import Decoder
from executor.parallel.collectives import all_gather, all_reduce
from executor.parallel.recompute import recomputing

PHASE = "data"


def apply_statistics(model: Decoder, meshes: Meshes) -> None:
    """Join the batch norms of a stage over dp, and let recomputed passes leave the running statistics alone."""
    ways, group = meshes.size("dp"), meshes.group("dp")
    joined = Joined(
        ways, partial(all_gather, dim=0, group=group, phase=PHASE), partial(all_reduce, group=group, phase=PHASE)
    )
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.counting = lambda: not recomputing()
            module.joined = joined if ways > 1 else None
