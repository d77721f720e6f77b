"""Runs a planner schedule with torch's pipeline runtime: the very program that the simulator replays.

A chunk of the planner is a virtual stage of torch; B of a program without W is a full backward, with W it leaves the
weight gradients to W. torch adds the sends. One stage is a pipeline too, so gradient accumulation needs no loop of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining import schedules as runtime
from torch.distributed.pipelining.schedules import _Action, _ComputationType, _PipelineScheduleRuntime

from executor.parallel.deferred import Deferred
from executor.spans import span
from planner import schedules

KINDS = {
    "F": _ComputationType.FORWARD,
    "B": _ComputationType.FULL_BACKWARD,
    "W": _ComputationType.BACKWARD_WEIGHT,
}


def actions(schedule: str, pp: int, vpp: int, micro_batches: int) -> dict[int, list[_Action | None]]:
    """The program of each rank of a planner schedule as torch's actions."""
    found = schedules.get(schedule)
    kinds = dict(KINDS)
    if found.splits_backward:
        kinds["B"] = _ComputationType.BACKWARD_INPUT
    return {
        rank: [_Action(step.chunk * pp + rank, kinds[step.kind], step.micro_batch) for step in program]
        for rank, program in enumerate(found.program(pp, vpp, micro_batches))
    }


class Sync(Protocol):
    """Told of each backward pass of a stage, so that data parallelism can reduce at the right one."""

    def before(self, *, complete: bool, last: bool) -> None:
        """A pass through autograd begins; `complete`: weight gradients included, `last`: of the stage in this step."""

    def after_weights(self, *, last: bool) -> None:
        """Deferred weight gradients have been added to the parameters."""


class Stage(PipelineStage):
    """A torch stage that times its actions and leaves data parallelism to a `Sync`."""

    def __init__(self, module: nn.Module, index: int, count: int, sync: Sync, *, split: bool, **options: Any) -> None:
        """`module` is stage `index` of `count`; `split`: weight gradients are actions of their own.

        `options` are those of PipelineStage.
        """
        self.deferred = Deferred() if split else None
        builder = self.deferred.take if self.deferred is not None else None
        super().__init__(module, index, count, dw_builder=builder, **options)
        self.sync = sync

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        """The forward pass of one micro-batch."""
        with span("forward", stage=self.stage_index, micro_batch=fwd_chunk_id), self.deferred or nullcontext():
            return super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)

    def backward_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> None:
        """The backward pass of one micro-batch, or of its input alone."""
        with span("backward", stage=self.stage_index, micro_batch=bwd_chunk_id):
            super().backward_one_chunk(bwd_chunk_id, *args, **kwargs)

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:  # noqa: FBT001, FBT002 (torch's signature)
        """The weight gradients of one micro-batch."""
        with span("weight gradient", stage=self.stage_index, micro_batch=bwd_chunk_id):
            super().backward_weight_one_chunk(bwd_chunk_id, last_backward)
            self.sync.after_weights(last=last_backward)

    def backward_maybe_with_nosync(self, backward_type: str, bwd_kwargs: Any, last_backward: bool = False) -> Any:  # noqa: FBT001, FBT002 (torch's signature)
        """One pass of autograd, announced to the sync."""
        self.sync.before(complete=self.deferred is None, last=last_backward)
        return super().backward_maybe_with_nosync(backward_type, bwd_kwargs, last_backward)


class Pipeline:
    """The stages of this rank and their program.

    `modules` are its chunks in order of depth, with a sync and empty tensors like what it receives and sends for each;
    `loss` maps (output of the last stage, labels) of a micro-batch to its share of the loss.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        syncs: Sequence[Sync],
        boundaries: Sequence[tuple[Tensor, Tensor]],
        group: dist.ProcessGroup,
        schedule: str,
        micro_batches: int,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """Lower the program; every rank of the pipeline must call it."""
        pp, rank, vpp = group.size(), group.rank(), len(modules)
        stages: list[Any] = [
            Stage(
                module,
                chunk * pp + rank,
                pp * vpp,
                sync,
                split=schedules.get(schedule).splits_backward,
                device=received.device,
                group=group,
                input_args=received.requires_grad_(),
                output_args=sent.requires_grad_(),
            )
            for chunk, (module, sync, (received, sent)) in enumerate(zip(modules, syncs, boundaries, strict=True))
        ]
        self.first, self.last = rank == 0, rank == pp - 1
        self.modules, self._group = modules, group
        self._received = [torch.empty_like(received, requires_grad=False) for received, _ in boundaries]
        self._loss = loss
        self._stages = pp * vpp
        self._runtime = _PipelineScheduleRuntime(stages, micro_batches, loss_fn=self._timed_loss, scale_grads=False)
        self._runtime._prepare_schedule_with_comms(actions(schedule, pp, vpp, micro_batches))  # noqa: SLF001

    @property
    def program(self) -> dict[int, list[_Action]]:
        """Every rank's actions with torch's sends and receives."""
        return self._runtime.pipeline_order_with_comms

    def run(self, inputs: Tensor, labels: Tensor, extra: Mapping[str, Tensor]) -> Tensor:
        """Forward and backward of all micro-batches; all tensors [rows, …] are split along dim 0.

        `extra` reaches every stage. Returns the sum of the losses on the last stage and 0 on the others; gradients
        stay in the parameters.
        """
        losses: list[Tensor] = []
        first = (inputs,) if self.first else ()
        target = labels if self.last else None
        more: dict[str, Any] = dict(extra)
        with _timed_messages():
            self._runtime.step(*first, target=target, losses=losses, return_outputs=False, **more)
        none = torch.zeros((), device=labels.device)
        return torch.stack([each.detach() for each in losses]).sum() if losses else none

    @torch.no_grad()
    def forward(self, inputs: Tensor, extra: Mapping[str, Tensor], micro_batches: int) -> list[Tensor]:
        """Forward alone, chunk after chunk, of any number of micro-batches of the usual size.

        The outputs of the last stage by micro-batch, [] on the other ranks.
        """
        pieces = list(inputs.tensor_split(micro_batches))
        also = _split(extra, micro_batches) if extra else [{} for _ in pieces]
        behind, ahead = (self._group.rank() - 1) % self._group.size(), (self._group.rank() + 1) % self._group.size()
        sent: list[tuple[Any, Tensor]] = []  # the tensors have to live until they have gone
        last = len(self.modules) - 1
        for chunk, module in enumerate(self.modules):
            outputs = []
            for index, more in enumerate(also):
                x = pieces[index]
                if not (self.first and chunk == 0) and self._group.size() > 1:
                    x = torch.empty_like(self._received[chunk])
                    dist.recv(x, group=self._group, group_src=behind)
                outputs.append(module(x, **more).contiguous())
                if not (self.last and chunk == last) and self._group.size() > 1:
                    sent.append((dist.isend(outputs[-1], group=self._group, group_dst=ahead), outputs[-1]))
            pieces = outputs
        for work, _ in sent:
            work.wait()
        return pieces if self.last else []

    def _timed_loss(self, output: Tensor, labels: Tensor) -> Tensor:
        with span("forward", stage=self._stages - 1):
            return self._loss(output, labels)


def _split(extra: Mapping[str, Tensor], pieces: int) -> list[dict[str, Tensor]]:
    """The tensors by name for each of the pieces along dim 0."""
    each = [tensor.tensor_split(pieces) for tensor in extra.values()]
    return [dict(zip(extra, piece, strict=True)) for piece in zip(*each, strict=True)]


@contextmanager
def _timed_messages() -> Iterator[None]:
    """Spans around the sends, receives and waits of torch's runtime, which has no hook for them."""
    start, wait = runtime._batch_p2p, runtime._wait_batch_p2p  # noqa: SLF001

    def timed_start(ops: list[dist.P2POp], desc: str | None = None) -> list[dist.Work]:
        kind = "send" if ops and ops[0].op is dist.isend else "receive"
        with span(kind, phase="pipeline", size=sum(op.tensor.nbytes for op in ops)):
            return start(ops, desc)

    def timed_wait(work: list[dist.Work]) -> None:
        with span("wait", phase="pipeline"):
            wait(work)

    hooked: Any = runtime
    hooked._batch_p2p, hooked._wait_batch_p2p = timed_start, timed_wait  # noqa: SLF001
    try:
        yield
    finally:
        hooked._batch_p2p, hooked._wait_batch_p2p = start, wait  # noqa: SLF001
