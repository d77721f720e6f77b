"""Ring attention over zigzag pieces (Liu 2023, arXiv:2310.01889; Llama 3's balance), one operator with its backward.

Partial outputs are merged by their log-sum-exp. One operator, so that selective recompute keeps its output and does
not send again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import _resolve_process_group
from torch.nn import functional

from executor.spans import span

_aten = torch.ops.aten


@torch.library.custom_op("executor::ring_attention", mutates_args=())
def ring_attention(q: Tensor, k: Tensor, v: Tensor, group: str) -> tuple[Tensor, Tensor]:
    """Causal attention over the tokens of all ranks of `group` (its name).

    q [b, heads, s, d], k [b, groups, s, d], v [b, groups, s, dv], rank r having pieces r and 2 n - 1 - r of the
    sequence; gives the output [b, heads, s, dv] and its log-sum-exp [b, heads, s] in fp32.
    """
    ring = _Ring(group)
    out, lse = _attend(q, k, v, causal=True)
    out = out.float()
    half = q.size(2) // 2
    for source in ring.sources():
        k, v = ring.pass_on(k, v)
        if source < ring.rank:  # all queries stand behind its first piece and before its second
            part, part_lse = _attend(q, k[:, :, :half], v[:, :, :half], causal=False)
            out, lse = _merge(out, lse, part, part_lse)
        else:  # only the second half of the queries stands behind it, and behind all of it
            part, part_lse = _attend(q[:, :, half:], k, v, causal=False)
            late = _merge(out[:, :, half:], lse[:, :, half:], part, part_lse)
            out, lse = (torch.cat((x[:, :, :half], y), 2) for x, y in zip((out, lse), late, strict=True))
    return out.to(q.dtype), lse.contiguous()


@ring_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, group: str) -> tuple[Tensor, Tensor]:
    return q.new_empty((*q.shape[:-1], v.size(-1))), q.new_empty(q.shape[:-1], dtype=torch.float32)


@torch.library.custom_op("executor::ring_attention_backward", mutates_args=())
def ring_attention_backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, group: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; those of k and v travel on with them and come home after a whole round."""
    ring = _Ring(group)
    half = q.size(2) // 2
    dq, dk, dv = (x.float() for x in _differentiate(gradient, q, k, v, out, lse, causal=True))
    for source in ring.sources():
        k, v = ring.pass_on(k, v)
        dk, dv = ring.pass_on(dk, dv)
        if source < ring.rank:
            parts = _differentiate(gradient, q, k[:, :, :half], v[:, :, :half], out, lse, causal=False)
            dq += parts[0]
            dk[:, :, :half] += parts[1]
            dv[:, :, :half] += parts[2]
        else:
            behind = [x[:, :, half:] for x in (gradient, q, out, lse)]
            parts = _differentiate(behind[0], behind[1], k, v, behind[2], behind[3], causal=False)
            dq[:, :, half:] += parts[0]
            dk += parts[1]
            dv += parts[2]
    dk, dv = ring.pass_on(dk, dv)
    return dq.to(q.dtype), dk.to(k.dtype, copy=True), dv.to(v.dtype, copy=True)  # an operator returns no views


@ring_attention_backward.register_fake
def _(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, group: str
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.group = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, gradient: Tensor, _lse: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    return (*ring_attention_backward(gradient.contiguous(), *ctx.saved_tensors, ctx.group), None)


ring_attention.register_autograd(_backward, setup_context=_remember)


class _Ring:
    """Where this rank stands, and its two neighbours."""

    def __init__(self, name: str) -> None:
        self.group = _resolve_process_group(name)  # type: ignore[arg-type]
        self.rank, self.size = self.group.rank(), self.group.size()

    def sources(self) -> list[int]:
        """Whose keys and values are here after each pass."""
        return [(self.rank - step) % self.size for step in range(1, self.size)]

    def pass_on(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Send two tensors to the next rank as one message, and receive those of the one before."""
        sent = torch.cat((first.flatten(), second.flatten()))
        got = torch.empty_like(sent)
        after, before = ((self.rank + step) % self.size for step in (1, -1))
        with span("send_receive", phase="context", size=sent.nbytes):
            works = dist.batch_isend_irecv(
                [
                    dist.P2POp(dist.isend, sent, group=self.group, group_peer=after),
                    dist.P2POp(dist.irecv, got, group=self.group, group_peer=before),
                ]
            )
            for work in works:
                work.wait()
        return got[: first.numel()].view_as(first), got[first.numel() :].view_as(second)


def _merge(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Two softmaxes over different keys as one."""
    total = torch.logaddexp(lse, part_lse)
    return out * (lse - total).exp().unsqueeze(-1) + part * (part_lse - total).exp().unsqueeze(-1), total


def _alike(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values repeated for each query head, and all widths padded to the largest, as the kernels want them."""
    width = max(q.size(-1), v.size(-1))
    if k.size(1) != q.size(1):
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), 1) for x in (k, v))
    padded = [functional.pad(x, (0, width - x.size(-1))) for x in (q, k, v)]
    return padded[0], padded[1], padded[2]


def _attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Output and fp32 log-sum-exp of one block."""
    scale, inputs = q.size(-1) ** -0.5, _alike(q, k, v)
    if q.device.type == "cpu":
        out, lse = _aten._scaled_dot_product_flash_attention_for_cpu(*inputs, 0.0, causal, scale=scale)  # noqa: SLF001
    else:
        out, lse, *_ = _aten._scaled_dot_product_flash_attention(*inputs, 0.0, causal, scale=scale)  # noqa: SLF001
    return out[..., : v.size(-1)], lse


def _differentiate(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one block's q, k, v, given the output and log-sum-exp over all keys."""
    scale, inputs = q.size(-1) ** -0.5, _alike(q, k, v)
    gradient, out = (functional.pad(x, (0, inputs[0].size(-1) - x.size(-1))) for x in (gradient, out))
    if q.device.type == "cpu":
        back = _aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001
        dq, dk, dv = back(gradient, *inputs, out, lse.contiguous(), 0.0, causal, scale=scale)
    else:
        dq, dk, dv = _on_cuda(gradient, inputs, out, lse.contiguous(), causal=causal, scale=scale)
    dk, dv = (x.unflatten(1, (k.size(1), -1)).sum(2) for x in (dk, dv))
    return dq[..., : q.size(-1)], dk[..., : k.size(-1)], dv[..., : v.size(-1)]


def _on_cuda(
    gradient: Tensor, inputs: tuple[Tensor, Tensor, Tensor], out: Tensor, lse: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The CUDA kernel also takes lengths (unused for equal ones) and the state of a dropout that is 0."""
    q, k, _ = inputs
    seed = torch.zeros(2, dtype=torch.uint64, device=q.device)
    empty = torch.empty(0, dtype=torch.uint64, device=q.device)
    back = _aten._scaled_dot_product_flash_attention_backward  # noqa: SLF001
    return back(  # type: ignore[no-any-return]
        gradient, *inputs, out, lse, None, None, q.size(2), k.size(2), 0.0, causal, seed, empty, scale=scale
    )
