"""A batch run forward through a trainer's pipeline: loss, labels and answers; nothing of the training changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from executor.mesh import Meshes
from executor.objective import IGNORED, Objective, View, Work
from executor.parallel.collectives import all_reduce
from executor.parallel.data import reshard
from executor.pipeline import Pipeline


@dataclass(frozen=True)
class Evaluation:
    """The `loss` summed over the `count` labels of all ranks' batches.

    `predictions` and `labels` are those of this rank's rows, the same on all stages of its pipeline; a label of -100
    does not count.
    """

    loss: float
    count: int
    predictions: Tensor
    labels: Tensor


@torch.no_grad()
def evaluate(
    work: Work, objective: Objective, view: View, pipeline: Pipeline, meshes: Meshes, micro_batch: int
) -> Evaluation:
    """Run `work`, of any number of rows, in micro-batches of the usual size; every rank must call it."""
    rows = len(work.inputs)
    most = all_reduce(torch.tensor(rows, device=work.inputs.device), meshes.group("dp"), "data", "max")
    micro_batches = max(-(-int(most) // micro_batch), 1)  # the same on all ranks, which gather weights together
    work = work.padded(micro_batches * micro_batch)
    outputs = _outputs(pipeline, work, micro_batches)
    labels = objective.targets(work.labels)
    sums = torch.zeros(2, dtype=torch.float64, device=labels.device)
    predictions = torch.empty_like(labels)
    if outputs:
        pieces = zip(outputs, work.labels.chunk(micro_batches), strict=True)
        judged = [objective.judge(output, each, view) for output, each in pieces]
        predictions = torch.cat([answers for _, answers in judged])
        sums[0] = torch.stack([loss for loss, _ in judged]).double().sum()
        sums[1] = (labels != IGNORED).sum()
    pp = meshes.group("pp")
    if pp.size() > 1:
        dist.broadcast(predictions, group=pp, group_src=pp.size() - 1)
    if meshes.rank("tp"):
        sums.zero_()  # the ranks of tp have all computed the same
    loss, count = all_reduce(sums, dist.group.WORLD, "data").tolist()  # type: ignore[arg-type]
    return Evaluation(loss, int(count), predictions[:rows], labels[:rows])


def _outputs(pipeline: Pipeline, work: Work, micro_batches: int) -> list[Tensor]:
    """Of the last stage, in evaluation mode."""
    for module in pipeline.modules:
        module.eval()
    outputs = pipeline.forward(work.inputs, work.extra, micro_batches)
    for module in pipeline.modules:
        module.train()
        reshard(module)
    return outputs
