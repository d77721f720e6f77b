"""A split judged by all ranks: each takes its share of the samples, none is left out and none counts twice."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from executor.data import Order, Split
from executor.objective import IGNORED
from executor.trainer import Trainer
from executor.training.scores import Scores

SEED = 0  # of the samples that evaluations look at


def evaluate(trainer: Trainer, split: Split, batch: int, samples: int, classes: int) -> Scores:
    """The scores of `samples` of a split (0: all), `batch` at a time; `classes` 0: of a language model.

    Which ones is drawn once and for all: a split may be sorted by class. The last batch is as small as what is left.
    Every rank must call it.
    """
    most = min(samples, len(split)) if samples else len(split)
    chosen = Order(len(split), SEED).numbers(0, most)
    loss, seen = 0.0, 0
    guessed = torch.zeros((classes, classes) if classes else 2, dtype=torch.int64)
    for start in range(0, most, batch):
        own = np.array_split(chosen[start : start + batch], trainer.meshes.size("dp"))[trainer.meshes.rank("dp")]
        found = trainer.evaluate([torch.from_numpy(each) for each in split.take(own)])
        loss, seen = loss + found.loss, seen + found.count
        guessed += _counted(found.predictions.cpu(), found.labels.cpu(), classes)
    total = trainer.view.total(guessed.to(trainer.device)).cpu()
    mean = loss / max(seen, 1)
    if not classes:
        right, count = total.tolist()
        return Scores(mean, count, right)
    confusion = (total // trainer.meshes.size("cp")).numpy()  # the ranks of cp have the same samples
    return Scores(mean, int(confusion.sum()), int(confusion.trace()), confusion)


def _counted(guesses: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The confusion matrix of this rank's samples, or [right, all] without classes."""
    there = labels != IGNORED
    guesses, labels = guesses[there], labels[there]
    if not classes:
        return torch.stack(((guesses == labels).sum(), there.sum()))
    return torch.bincount(labels * classes + guesses, minlength=classes * classes).view(classes, classes)
