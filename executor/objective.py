"""What a training minimises: how a batch becomes inputs and labels, and what an output costs.

| objective | batch | loss |
| LanguageModel | token ids [rows, s + 1] | cross-entropy of the next tokens over all tokens |
| MaskedLanguageModel | (ids [rows, s], labels [rows, s], …) | cross-entropy over the masked tokens |
| Classification | (inputs [rows, …], labels [rows], …) | cross-entropy over the samples |

`…`: for text, optionally which tokens are there [rows, s] (1, or 0 for padding) and their types [rows, s].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from executor.loss import cross_entropy, likeliest
from executor.parallel.collectives import Group
from planner.errors import Fault, InputError
from planner.layers.base import Linear
from planner.model import Model
from planner.strategy import Workload

Batch = Tensor | Sequence[Tensor]
IGNORED = -100  # a label that no loss counts
AHEAD_WEIGHT = 0.3  # of all prediction modules together beside the main loss (DeepSeek-V3, arXiv:2412.19437, 4.2)


@dataclass(frozen=True)
class View:
    """How this rank sees a batch: `positions` [n] of its tokens in each sequence, `ahead` prediction modules.

    `vocabulary`: the ranks among which the logits are cut, None where they are whole; `total` adds a tensor over all
    ranks that have other tokens or sequences.
    """

    workload: Workload
    positions: Tensor
    ahead: int
    vocabulary: Group | None
    total: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Work:
    """A batch as the pipeline takes it, everything by sample along dim 0.

    `inputs` go into the first stage, `labels` to the last, `extra` to every stage by name; the loss of a step is the
    sum over all labels divided by `count`.
    """

    inputs: Tensor
    labels: Tensor
    count: float
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def padded(self, rows: int) -> Work:
        """With samples that no loss counts behind, `rows` in all."""
        more = rows - len(self.inputs)
        if more == 0:
            return self
        labels = self.labels.new_full((more, *self.labels.shape[1:]), IGNORED)
        extra = {name: _repeated(each, more) for name, each in self.extra.items()}
        return replace(self, inputs=_repeated(self.inputs, more), labels=torch.cat((self.labels, labels)), extra=extra)


class Objective(Protocol):
    """What `executor.trainer.Trainer` minimises and evaluates. Its methods run on every rank."""

    def work(self, batch: Batch, view: View) -> Work:
        """This rank's part of a step, from its rows of the global batch."""

    def loss(self, output: Tensor, labels: Tensor, view: View) -> Tensor:
        """The loss of a micro-batch, summed over its labels; `output` is that of the last stage."""

    def targets(self, labels: Tensor) -> Tensor:
        """The labels that predictions are compared with."""

    def judge(self, output: Tensor, labels: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """The summed loss of `targets` alone and the likeliest answers, of their shape."""


@dataclass(frozen=True)
class LanguageModel:
    """Predicts the next token, and those after it where the model has prediction modules.

    `smoothing` of the labels in training (Szegedy 2016, arXiv:1512.00567), here and below.
    """

    smoothing: float = 0.0

    def work(self, batch: Batch, view: View) -> Work:
        """Sequences [rows, s + 1], whose last column is only predicted, at the positions of this rank.

        Inputs [rows, n]; labels [rows, 1 + ahead, n], those of prediction module i one further, `IGNORED` behind the
        end; `ahead`, the next tokens [rows, n, ahead].
        """
        (tokens,) = parts(batch)
        following = tokens[:, 1:]
        rows = [following]
        for depth in range(1, 1 + view.ahead):
            end = following.new_full((len(tokens), depth), IGNORED)
            rows.append(torch.cat((following[:, depth:], end), 1))
        labels = torch.stack(rows, 1)[..., view.positions]
        inputs = tokens[:, :-1][:, view.positions].contiguous()
        ahead = labels[:, : view.ahead].clamp(min=0).transpose(1, 2).contiguous()
        return Work(inputs, labels, view.workload.tokens_per_step, {"ahead": ahead} if view.ahead else {})

    def loss(self, output: Tensor, labels: Tensor, view: View) -> Tensor:
        """Prediction modules included, which weigh `AHEAD_WEIGHT` together."""
        logits = output.chunk(1 + view.ahead)
        pairs = zip(logits, labels.unbind(1), strict=True)
        each = [cross_entropy(*pair, view.vocabulary, self.smoothing) for pair in pairs]
        return each[0] + sum(each[1:]) * (AHEAD_WEIGHT / max(view.ahead, 1))

    def targets(self, labels: Tensor) -> Tensor:
        """The next tokens [rows, n]."""
        return labels[:, 0]

    def judge(self, output: Tensor, labels: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """Of the next token alone."""
        logits = output.chunk(1 + view.ahead)[0]
        return cross_entropy(logits, labels[:, 0], view.vocabulary), likeliest(logits, view.vocabulary)


@dataclass(frozen=True)
class MaskedLanguageModel:
    """Predicts the tokens that the input hides: labels are `IGNORED` where nothing is hidden (BERT)."""

    smoothing: float = 0.0

    def work(self, batch: Batch, view: View) -> Work:
        """Ids and labels [rows, s] at the positions of this rank; `count` the hidden tokens of the global batch."""
        inputs, labels, *more = parts(batch)
        labels = labels[:, view.positions]
        count = view.total((labels != IGNORED).sum())
        return Work(inputs[:, view.positions].contiguous(), labels, max(int(count), 1), _text(more, view))

    def loss(self, output: Tensor, labels: Tensor, view: View) -> Tensor:
        """Over the hidden tokens."""
        return cross_entropy(output, labels, view.vocabulary, self.smoothing)

    def targets(self, labels: Tensor) -> Tensor:
        """The hidden tokens [rows, n]."""
        return labels

    def judge(self, output: Tensor, labels: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """Of the hidden tokens."""
        return cross_entropy(output, labels, view.vocabulary), likeliest(output, view.vocabulary)


@dataclass(frozen=True)
class Classification:
    """Tells which of `classes` a sample is; `smoothing` of the labels in training."""

    classes: int
    smoothing: float = 0.0

    def work(self, batch: Batch, view: View) -> Work:
        """Token ids [rows, s] or images [rows, channels, height, width], and labels [rows]."""
        inputs, labels, *more = parts(batch)
        return Work(inputs.contiguous(), labels, view.workload.global_batch, _text(more, view))

    def loss(self, output: Tensor, labels: Tensor, view: View) -> Tensor:
        """Over the samples; `output` [rows, classes]."""
        return _of_samples(output, labels, self.smoothing)

    def targets(self, labels: Tensor) -> Tensor:
        """The classes [rows]."""
        return labels

    def judge(self, output: Tensor, labels: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """Without smoothing."""
        return _of_samples(output, labels, 0.0), output.argmax(-1)


def objective_of(model: Model) -> Objective:
    """The objective of what a model predicts."""
    if model.predicts == "tokens":
        return LanguageModel()
    if model.predicts == "masked":
        return MaskedLanguageModel()
    return Classification(_outputs(model))


def refuse_objective(objective: Objective, model: Model) -> None:
    """Raise InputError when the head of a model has other outputs than one of the objectives here needs."""
    known = {"tokens": "next tokens", "masked": "masked tokens", "classes": f"one of {_outputs(model)} classes"}
    classified = model.predicts == "classes"
    if isinstance(objective, Classification):
        fits = classified and objective.classes == _outputs(model)
    else:
        fits = not (classified and isinstance(objective, LanguageModel | MaskedLanguageModel))
    if not fits:
        raise InputError(Fault("objective", f"{model.name} predicts {known[model.predicts]}", objective))


def _outputs(model: Model) -> int:
    return next(part.outputs for part in model.head.parts if isinstance(part, Linear) and part.name == "output")


def parts(batch: Batch) -> tuple[Tensor, ...]:
    """The tensors of a batch."""
    return (batch,) if isinstance(batch, Tensor) else tuple(batch)


def _of_samples(output: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return functional.cross_entropy(output.float(), labels, reduction="sum", label_smoothing=smoothing)


def _text(more: Sequence[Tensor], view: View) -> dict[str, Tensor]:
    """Which tokens are there, for all keys that attention sees, and the types of this rank's tokens."""
    found = dict(zip(("there", "types"), more, strict=False))
    if "there" in found:
        found["there"] = found["there"].bool()
    if "types" in found:
        found["types"] = found["types"][:, view.positions].contiguous()
    return found


def _repeated(x: Tensor, more: int) -> Tensor:
    """`x` with its last row `more` times behind; zeros where it has none."""
    row = x[-1:] if len(x) else x.new_zeros((1, *x.shape[1:]))
    return torch.cat((x, row.expand(more, *row.shape[1:])))
