"""What one rank of a large plan really sends: its part of the twin run in one process, as rank 0 of a pretended world.

The oracle of `planner.cost.messages`. torch's 'fake' process group pretends the other ranks, which all do what this one
does; a dispatch mode logs every collective of the executor and of FSDP2. Pipeline messages come from the schedule's
action list (`pipeline_sends`), since a stage can't run without its neighbours.

What the executor sends beyond the planner's list: `WEIGHT_COLUMN` more channels to the experts (a token's weight
travels with its row), the numbers of rows before each exchange (integers, left out of the log), the gradients of keys
and values in fp32 and once more, home, at the end of a ring, and one call for embedding and head together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining.schedules import _add_send_recv, _ComputationType
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from executor.layers.moe import Mixture
from executor.mesh import Meshes, build_meshes
from executor.model import Decoder, build
from executor.parallel import Options, apply
from executor.parallel.context import order
from executor.pipeline import actions
from planner.cost.messages import Message
from planner.model import Model
from planner.strategy import Choices, Degrees, Workload

WEIGHT_COLUMN = 1
LOGGED = {
    "_c10d_functional.all_gather_into_tensor.default": "all_gather",
    "_c10d_functional.reduce_scatter_tensor.default": "reduce_scatter",
    "_c10d_functional.all_reduce.default": "all_reduce",
    "_c10d_functional.all_to_all_single.default": "all_to_all",
    "c10d._allgather_base_.default": "all_gather",
    "c10d._reduce_scatter_base_.default": "reduce_scatter",
    "c10d.allreduce_.default": "all_reduce",
}


class Log(TorchDispatchMode):
    """Logs collectives as messages, and answers those that carry data as a world of equal ranks would."""

    def __init__(self, meshes: Meshes) -> None:
        """Axes are told by the groups of `meshes`."""
        super().__init__()  # type: ignore[no-untyped-call]
        views = [("data", meshes.data["shard"]), ("expert_data", meshes.sparse["shard"])]
        views += [(axis, meshes.dense[axis]) for axis in ("cp", "tp")]
        views += [("tp", meshes.data["tp"]), *((axis, meshes.sparse[axis]) for axis in ("ep", "etp"))]
        self._axes = {view.get_group().group_name: axis for axis, view in views if view.size() > 1}
        self.messages: list[Message] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Log `func` if it is a collective of floating-point tensors."""
        name = LOGGED.get(str(func))
        if name is None:
            return func(*args, **(kwargs or {}))
        if func.namespace == "c10d":
            out = func(*args, **(kwargs or {}))
            group = next(dist.ProcessGroup.unbox(x) for x in args if _is_group(x)).group_name
            tensors = [x for arg in args for x in (arg if isinstance(arg, list) else [arg]) if isinstance(x, Tensor)]
        else:
            group = args[-1]
            out = _alike(name, args)
            tensors = [args[0], out]
        if tensors[0].is_floating_point():
            whole = max(tensor.nbytes for tensor in tensors)
            self.messages.append(Message(name, self._axes.get(group, "?"), whole))
        return out


def rank_messages(
    model: Model,
    degrees: Degrees,
    choices: Choices,
    workload: Workload,
    *,
    layers: range,
    ends: bool = True,
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[list[Message], list[Message]]:
    """(forward, backward) collectives of one micro-batch on rank 0, which holds `layers` (and with `ends` all else).

    Starts and ends a process group of its own; raises ValueError when one is running.
    """
    if dist.is_initialized():
        raise ValueError("a process group is running already")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=int(degrees.world))
    try:
        meshes = build_meshes(degrees, "cpu", choices.order)
        options = Options()
        module = build(model, layers=layers, embedding=ends, mtp=False, head=ends)
        apply(module, meshes, choices, options, workload.seq_len, dtype)
        positions = order(workload.seq_len, int(degrees.cp), 0, options.context)
        return _run(module, meshes, degrees, positions, sequence=choices.sequence_parallel, hidden=model.hidden)
    finally:
        dist.destroy_process_group()


def pipeline_sends(schedule: str, pp: int, vpp: int, micro_batches: int) -> list[Counter[str]]:
    """How many activations ("forward") and gradients ("backward") each rank of a pipeline sends in one step."""
    program = actions(schedule, pp, vpp, micro_batches)
    full = _add_send_recv(program, lambda stage: stage % pp, pp * vpp)  # type: ignore[arg-type]
    names = {_ComputationType.SEND_F: "forward", _ComputationType.SEND_B: "backward"}
    kinds = ((action.computation_type for action in full[rank]) for rank in range(pp))
    return [Counter(names[kind] for kind in each if kind in names) for each in kinds]


def _run(
    module: Decoder, meshes: Meshes, degrees: Degrees, positions: Tensor, *, sequence: bool, hidden: int
) -> tuple[list[Message], list[Message]]:
    """Forward and backward of random tokens, or of random hidden states."""
    for each in module.modules():
        if isinstance(each, Mixture):
            each.router._choose = _in_turn(each.router.experts, each.router.topk)  # type: ignore[method-assign, assignment] # noqa: SLF001
    batch = int(degrees.micro_batch)
    x: Tensor = torch.zeros(batch, len(positions), dtype=torch.int64)
    if not module.starts:
        x = torch.randn(batch, len(positions) // (int(degrees.tp) if sequence else 1), hidden, dtype=torch.bfloat16)
    with Log(meshes) as ahead, _rings(ahead):
        out = module(x.requires_grad_(x.is_floating_point()), positions)
    with Log(meshes) as behind, _rings(behind):
        torch.autograd.backward(out, torch.ones_like(out))
    return ahead.messages, behind.messages


def _in_turn(experts: int, topk: int) -> Callable[[Tensor], Tensor]:
    """A choice that loads all experts alike."""
    return lambda scores: (torch.arange(scores.size(0) * topk) % experts).view(-1, topk)


@contextmanager
def _rings(log: Log) -> Iterator[None]:
    """Log messages to neighbours, which pass no dispatcher inside the ring's operator; what comes back is what left."""
    plain = dist.batch_isend_irecv

    def logged(ops: list[dist.P2POp]) -> list[Any]:
        sent = [op.tensor for op in ops if op.op is dist.isend]
        log.messages += [Message("send", "cp", tensor.nbytes) for tensor in sent]
        for op, tensor in zip((op for op in ops if op.op is dist.irecv), sent, strict=True):
            op.tensor.copy_(tensor)
        return []

    dist.batch_isend_irecv = logged  # type: ignore[assignment]
    try:
        yield
    finally:
        dist.batch_isend_irecv = plain


def _alike(name: str, args: Any) -> Tensor:
    """What a functional collective returns where every rank has this rank's input."""
    x: Tensor = args[0]
    if name == "all_reduce":
        return x.clone()
    if name == "all_gather":
        return x.repeat(args[1], *[1] * (x.dim() - 1))
    if name == "reduce_scatter":
        return x.chunk(args[2])[0].clone()
    got = args[1]
    first = x.split(args[2])[0]  # what every rank sends to rank 0
    return torch.cat([first] * len(got)) if len(set(got)) == 1 else x.new_zeros(sum(got), *x.shape[1:])


def _is_group(x: Any) -> bool:
    return isinstance(x, torch.ScriptObject) and "ProcessGroup" in str(x._type())  # noqa: SLF001 (no public name)
