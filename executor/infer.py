"""What a deployed model says to new samples: the next bytes and the perplexity of a text, or a class and how sure."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from executor.exported import Deployed
from executor.loss import cross_entropy
from planner.errors import Fault, InputError

LARGEST = 256 * 2**20  # bytes of an input
REPEATS = 5  # a latency is the median of so many calls
PADDING = 0  # the id behind a text that is shorter than the sequence
BYTES = 256


@dataclass(frozen=True)
class Latency:
    """The median `seconds` [s] by the wall clock of `repeats` calls with `samples` samples each."""

    seconds: float
    repeats: int
    samples: int


def latency(call: Callable[[], object], samples: int, repeats: int = REPEATS) -> Latency:
    """How long a call takes, after one that doesn't count."""
    call()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return Latency(statistics.median(found), repeats, samples)


@torch.no_grad()
def perplexity(deployed: Deployed, text: bytes) -> float | None:
    """exp of the mean loss a byte, each byte seen after those of its window; None for a text of one byte."""
    ids, length = _ids(text), deployed.facts.shape[0]
    if len(ids) < 2:
        return None
    total = 0.0
    for start in range(0, len(ids) - 1, length):
        window = ids[start : start + length + 1]
        total += float(cross_entropy(deployed.module(window[None, :-1])[0], window[1:]))
    return math.exp(total / (len(ids) - 1))


@torch.no_grad()
def continuation(deployed: Deployed, text: bytes, count: int, temperature: float = 0.0, seed: int = 0) -> bytes:
    """The next `count` bytes: the likeliest at temperature 0, else drawn by `seed`; the window slides."""
    ids, length = _ids(text), deployed.facts.shape[0]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        logits = deployed.module(ids[None, -length:])[0, -1].float()
        if temperature == 0.0:
            following = logits.argmax()
        else:
            following = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[0]
        ids = torch.cat((ids, following.view(1)))
    return bytes(ids[len(text) :].tolist())


@torch.no_grad()
def classified(deployed: Deployed, inputs: Tensor, there: Tensor | None = None) -> Tensor:
    """Probabilities [samples, classes] of images or of padded byte ids, of which `there` are."""
    extra = {} if there is None else {"there": there}
    return functional.softmax(deployed.module(inputs, **extra).float(), -1)


def texts(deployed: Deployed, found: list[bytes]) -> tuple[Tensor, Tensor]:
    """Texts as a classifier takes them: ids [samples, tokens], cut or padded, and which tokens are there."""
    length = deployed.facts.shape[0]
    ids = torch.full((len(found), length), PADDING)
    for row, text in zip(ids, found, strict=True):
        cut = text[:length]
        row[: len(cut)] = _ids(cut)
    return ids, torch.arange(length) < torch.tensor([[len(text)] for text in found])


def images(deployed: Deployed, path: Path) -> Tensor:
    """The images of a .npy file [samples, channels, height, width], whole numbers scaled as in training.

    InputError when they don't fit the model.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(Fault(str(path), f"can't be read: {error.strerror or error}")) from None
    except ValueError as error:
        raise InputError(Fault(str(path), f"is no .npy file of images: {error}")) from None
    wanted = deployed.facts.shape
    if found.shape[1:] != wanted and found.shape == wanted:
        found = found[None]
    if found.shape[1:] != wanted or found.dtype.kind not in "fiu":
        text = f"expected numbers of the shape [samples, {', '.join(str(each) for each in wanted)}]"
        raise InputError(Fault(str(path), text, f"{list(found.shape)} of {found.dtype}"))
    if not np.isfinite(found).all():
        raise InputError(Fault(str(path), "expected finite numbers"))
    scale = deployed.facts.scale if found.dtype.kind in "iu" else 1.0
    return torch.from_numpy(found.astype(np.float32) / np.float32(scale))


def _ids(text: bytes) -> Tensor:
    return torch.tensor(list(text), dtype=torch.int64)
