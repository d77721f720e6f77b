"""How good a deployed model is on held-out data, in one process: loss, accuracy, and perplexity of a language model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from executor.data import Split
from executor.exported import Deployed
from executor.loss import cross_entropy

BATCH = 64  # samples that are predicted together


@torch.no_grad()
def scores(deployed: Deployed, split: Split, most: int = 0) -> dict[str, float]:
    """Mean loss a token or sample, share of right answers, and for text exp(loss); over `most` samples (0: all)."""
    loss, right, count = 0.0, 0, 0
    for inputs, labels, extra in batches(deployed, split, most):
        output = deployed.module(inputs, **extra)
        loss += float(cross_entropy(output, labels))
        right += int((output.argmax(-1) == labels).sum())
        count += labels.numel()
    found = {"loss": loss / max(count, 1), "accuracy": right / max(count, 1), "samples": float(count)}
    if deployed.facts.task == "language-model":
        found["perplexity"] = math.exp(min(found["loss"], 700.0))
    return found


def batches(deployed: Deployed, split: Split, most: int = 0) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Inputs, labels and what else the model takes, a batch at a time."""
    count = min(len(split), most or len(split))
    for start in range(0, count, BATCH):
        arrays = [torch.from_numpy(each) for each in split.take(np.arange(start, min(start + BATCH, count)))]
        if deployed.facts.task == "language-model":
            yield arrays[0][:, :-1], arrays[0][:, 1:], {}
        else:
            names = dict(zip(("there", "types"), arrays[2:], strict=False))
            yield arrays[0], arrays[1], {key: x.bool() if key == "there" else x for key, x in names.items()}
