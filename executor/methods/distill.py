"""Knowledge distillation: a student learns the probabilities, and if wished the hidden states, of a frozen teacher.

Logits: T² · KL(teacher ‖ student) at temperature T beside the student's own loss (Hinton 2015, arXiv:1503.02531).
Hidden states: mean squared difference behind a trained projection (Romero 2014, arXiv:1412.6550; Jiao 2019,
arXiv:1909.10351). The objective of a recipe is wrapped, so whatever it learns, on any layout, a teacher can be put
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import Function

from executor.methods.settings import Distill
from executor.objective import IGNORED, Batch, Objective, View, Work
from executor.parallel.collectives import Group, all_reduce
from planner.errors import Fault, InputError

PROJECTION = "distill_projection"  # the name inside a student; no part of the model that is deployed


@dataclass(frozen=True)
class Taught:
    """What a teacher says to some samples: `logits` [rows, …, classes], `hidden` [rows, …, width] where asked for."""

    logits: Tensor
    hidden: Tensor | None = None


class Teacher(Protocol):
    """Answers samples; on this rank (`Here`) or on ranks of its own (`executor.methods.roles.There`)."""

    def __call__(self, inputs: Tensor, extra: Mapping[str, Tensor]) -> Taught:
        """Of whole sequences or images [rows, …]; never with a gradient."""


class Here:
    """A teacher whose forward pass runs on this rank."""

    def __init__(self, module: nn.Module, *, hidden: bool = False) -> None:
        """`module` is frozen; with `hidden` what goes into its head is told too."""
        self.module = module.eval().requires_grad_(requires_grad=False)
        self._seen: list[Tensor] = []
        if hidden:
            head_of(module).register_forward_pre_hook(lambda _module, inputs: self._seen.append(inputs[0]))

    @torch.no_grad()
    def __call__(self, inputs: Tensor, extra: Mapping[str, Tensor]) -> Taught:
        """One forward pass."""
        self._seen.clear()
        logits = self.module(inputs, **extra)
        return Taught(logits, self._seen[0] if self._seen else None)


class Distillation:
    """The objective `own` with a teacher beside it; an `executor.objective.Objective`.

    The teacher is asked for one micro-batch at a time, by the ranks that compute the loss, and not in evaluation.
    """

    def __init__(self, own: Objective, teacher: Teacher, how: Distill) -> None:
        """`how` weighs the teacher; see `Project` for hidden states."""
        self.own, self.teacher, self.how = own, teacher, how
        self.project: Project | None = None
        self._work: tuple[Work, Work] | None = None

    def work(self, batch: Batch, view: View) -> Work:
        """As the own objective; whole sequences are kept for the teacher where this rank sees a part of each."""
        made = self.own.work(batch, view)
        length = view.workload.seq_len
        full = made if len(view.positions) == length else self._full(batch, view, length)
        self._work = made, full
        return made

    def loss(self, output: Tensor, labels: Tensor, view: View) -> Tensor:
        """(1 - weight) · own + weight · T² · KL, and the difference of hidden states where asked for."""
        inputs, extra = self._samples(labels)
        taught = self.teacher(inputs, extra)
        student, wanted = output[: len(inputs)], self.own.targets(labels)
        logits = taught.logits[: len(inputs)]
        if wanted.dim() > 1 and logits.size(1) != wanted.size(1):
            logits = logits[:, view.positions]
        soft = divergence(student, logits, wanted, self.how.temperature, view.vocabulary)
        total = (1.0 - self.how.weight) * self.own.loss(output, labels, view) + self.how.weight * soft
        if self.project is not None and taught.hidden is not None:
            hidden = taught.hidden[: len(inputs)]
            if wanted.dim() > 1 and hidden.size(1) != wanted.size(1):
                hidden = hidden[:, view.positions]
            total = total + self.how.hidden * self.project.difference(hidden, wanted)
        return total

    def targets(self, labels: Tensor) -> Tensor:
        """Those of the own objective."""
        return self.own.targets(labels)

    def judge(self, output: Tensor, labels: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """Evaluation asks no teacher."""
        return self.own.judge(output, labels, view)

    def _full(self, batch: Batch, view: View, length: int) -> Work:
        positions = torch.arange(length, device=view.positions.device)
        return self.own.work(batch, replace(view, positions=positions))

    def _samples(self, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The samples of a micro-batch: its labels are a view of the batch's, so where they lie says which they are."""
        if self._work is None:
            raise ValueError("a loss was asked for before a batch")
        made, full = self._work
        if labels.untyped_storage().data_ptr() != made.labels.untyped_storage().data_ptr():
            raise ValueError("the labels of a micro-batch must be a view of the batch's labels")
        first = (labels.storage_offset() - made.labels.storage_offset()) // max(made.labels.stride(0), 1)
        here = slice(first, first + len(labels))
        return full.inputs[here], {name: each[here] for name, each in full.extra.items()}


class Project(nn.Module):
    """Part of the student: what goes into its head, projected to the teacher's width, remembered for the loss."""

    def __init__(self, own: int, teacher: int) -> None:
        """Widths of student and teacher."""
        super().__init__()
        self.matrix = nn.Linear(own, teacher, bias=False)
        self._seen: Tensor | None = None

    def watch(self, head: nn.Module) -> None:
        """See every input of the student's head while it trains."""
        head.register_forward_pre_hook(self._see)

    def difference(self, taught: Tensor, labels: Tensor) -> Tensor:
        """The mean squared difference a sample or token, summed over those that have a label."""
        if self._seen is None:
            raise ValueError("no hidden state was seen before the loss")
        apart = (self._seen[: len(taught)].float() - _pooled(taught).float()).square()
        return apart.flatten(labels.dim()).mean(-1)[labels != IGNORED].sum()

    def _see(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.training:
            self._seen = self.matrix(_pooled(inputs[0]))


def _pooled(hidden: Tensor) -> Tensor:
    """Hidden states of an image as the mean over its positions, others as they are."""
    return hidden.mean((2, 3)) if hidden.dim() == 4 else hidden


def projection(module: nn.Module, width: int) -> Project:
    """Give the part of a student that has the head a `Project` to the teacher's `width`, trained with the rest.

    Its start doesn't depend on the layout: every rank draws it from the same seed.
    """
    head = head_of(module)
    own = next(each.size(-1) for each in head.parameters() if each.dim() == 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Project(own, width)
    module.add_module(PROJECTION, made)
    made.watch(head)
    return made


def head_of(module: nn.Module) -> nn.Module:
    """The head of a model; InputError for one without."""
    head = getattr(module, "head", None)
    if not isinstance(head, nn.Module):
        raise InputError(Fault("hidden", "the model has no head whose inputs could be compared"))
    return head


def divergence(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, vocabulary: Group | None = None
) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), summed over the tokens or samples that have a label.

    `student` [..., classes on this rank of `vocabulary`], `teacher` [..., classes], `labels` [...].
    """
    kept = (labels != IGNORED).flatten()
    wanted = (teacher.detach().float().flatten(0, -2)[kept] / temperature).log_softmax(-1)
    given = student.float().flatten(0, -2)[kept] / temperature
    entropy = (wanted.exp() * wanted).sum()
    if vocabulary is None:
        cross = -(wanted.exp() * given.log_softmax(-1)).sum()
    else:
        share = wanted.exp().tensor_split(vocabulary.size(), -1)[vocabulary.rank()]
        cross = _Soft.apply(given, share, vocabulary)  # type: ignore[no-untyped-call]
    return temperature**2 * (entropy + cross)


class _Soft(Function):
    """Cross-entropy with soft labels over a vocabulary that ranks share: three small reductions."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, share: Tensor, group: Group) -> Tensor:
        highest = all_reduce(logits.max(-1).values, group, "tensor", "max")
        weights = (logits - highest.unsqueeze(-1)).exp()
        total = all_reduce(weights.sum(-1), group, "tensor")
        wanted = all_reduce((share * logits).sum(-1), group, "tensor")
        ctx.save_for_backward(weights / total.unsqueeze(-1), share)
        return (total.log() + highest - wanted).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        found, share = ctx.saved_tensors
        return gradient * (found - share), None, None
