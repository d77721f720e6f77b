"""Cross-entropy of next tokens, summed, over a vocabulary that tensor parallelism may have cut (loss parallelism)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from executor.parallel.collectives import Group, all_reduce, run


def cross_entropy(logits: Tensor, labels: Tensor, group: Group | None = None, smoothing: float = 0.0) -> Tensor:
    """Sum over all tokens of -log softmax(logits)[label], in fp32.

    `logits` [..., vocabulary] or this rank's equal slice of it, in rank order of `group`; `labels` [...] token ids,
    -100 where none counts. `smoothing` spreads that share of each label evenly over the vocabulary (Szegedy 2016).
    """
    flat, wanted = logits.flatten(0, -2).float(), labels.flatten()
    if group is None:
        return functional.cross_entropy(flat, wanted, reduction="sum", label_smoothing=smoothing)
    return run(_Sliced, flat, wanted, group, smoothing)


def likeliest(logits: Tensor, group: Group | None = None) -> Tensor:
    """The id of the largest logit of each token, the lowest of equal ones; arguments as in `cross_entropy`."""
    highest, ids = logits.detach().float().max(-1)
    if group is None:
        return ids
    best = all_reduce(highest, group, "tensor", "max")
    ids = torch.where(highest == best, ids + group.rank() * logits.size(-1), logits.size(-1) * group.size())
    return -all_reduce(-ids, group, "tensor", "max")


class _Sliced(Function):
    """Megatron-LM's three small reductions in place of gathering the logits (Shoeybi 2019, arXiv:1909.08053)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, group: Group, smoothing: float) -> Tensor:
        width = logits.size(-1)
        highest = all_reduce(logits.max(-1).values, group, "tensor", "max")
        shifted = logits - highest.unsqueeze(-1)
        local = labels - group.rank() * width
        held = (local >= 0) & (local < width)
        picked = shifted.gather(-1, local.clamp(0, width - 1).unsqueeze(-1)).squeeze(-1)
        picked = picked * held
        ctx.even = smoothing / (width * group.size())
        if smoothing:
            picked = (1.0 - smoothing) * picked + ctx.even * shifted.sum(-1)
        powers = shifted.exp_()
        total, chosen = all_reduce(torch.stack((powers.sum(-1), picked)), group, "tensor")
        ctx.save_for_backward(powers.div_(total.unsqueeze(-1)), local, held, labels >= 0)
        ctx.smoothing = smoothing
        loss: Tensor = ((total.log() - chosen) * (labels >= 0)).sum()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        softmax, local, held, counted = ctx.saved_tensors
        back = softmax - ctx.even
        rows = held.nonzero().squeeze(-1)
        back[rows, local[rows]] -= 1.0 - ctx.smoothing
        return back.mul_(counted.unsqueeze(-1)).mul_(gradient), None, None, None
