"""A teacher on ranks of its own: the ranks are split into students and teachers, which send inputs and logits across.

Each side is a world of its own (its default process group), so a student trains as if it were alone; one more group
joins the two. A teacher answers whoever asks until all of its students are done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d

from executor.methods.distill import Here, Taught

TYPES = (torch.int64, torch.float32, torch.bfloat16, torch.bool)
MOST_DIMS = 6
ASK, DONE = 1, 0
INPUTS = "inputs"


@dataclass(frozen=True)
class Role:
    """This rank: a teacher or not, its peers on the other side (one for a student, its students for a teacher)."""

    teaches: bool
    peers: tuple[int, ...]
    group: Any


def split(teachers: int, timeout: float = 60.0) -> Role:
    """Make the last `teachers` ranks of the default process group a world of their own, the others another.

    Students ask the teachers in turn. Every rank must call it; `timeout` [s] of each message and collective.
    """
    rank, world, limit = dist.get_rank(), dist.get_world_size(), timedelta(seconds=timeout)
    students = world - teachers
    if not 0 < teachers < world:
        raise ValueError(f"of {world} ranks {teachers} can't be teachers")
    backend = dist.get_backend()
    store = distributed_c10d._get_default_store()  # noqa: SLF001 (no public way to the store of a running world)
    teaches = rank >= students
    group = dist.ProcessGroupGloo(dist.PrefixStore("roles", store), rank, world, limit)  # type: ignore[attr-defined]
    dist.barrier()
    dist.destroy_process_group()
    own = dist.PrefixStore("teachers" if teaches else "students", store)  # type: ignore[attr-defined]
    place, size = (rank - students, teachers) if teaches else (rank, students)
    dist.init_process_group(backend, store=own, rank=place, world_size=size, timeout=limit)
    mine = tuple(each for each in range(students) if each % teachers == place)
    return Role(teaches, mine if teaches else (students + rank % teachers,), group)


class There:
    """A teacher on another rank, as `executor.methods.distill.Teacher`."""

    def __init__(self, role: Role) -> None:
        """Of a student's role."""
        self._group, self._to = role.group, role.peers[0]

    def __call__(self, inputs: Tensor, extra: Mapping[str, Tensor]) -> Taught:
        """Send the samples, wait for what the teacher says to them."""
        self._number(ASK)
        self._number(len(extra))
        for name, each in ((INPUTS, inputs), *extra.items()):
            _send_text(self._group, name, self._to)
            _send(self._group, each, self._to)
        logits = _receive(self._group, self._to)
        hidden = _receive(self._group, self._to)
        return Taught(logits, hidden if hidden.numel() else None)

    def done(self) -> None:
        """This student asks no more."""
        self._number(DONE)

    def _number(self, value: int) -> None:
        _send(self._group, torch.tensor([value]), self._to)


def serve(teacher: Here, role: Role) -> int:
    """Answer this teacher's students in turn until each is done; how many questions there were."""
    asking, questions = list(role.peers), 0
    while asking:
        for student in list(asking):
            if int(_receive(role.group, student)) == DONE:
                asking.remove(student)
                continue
            questions += 1
            count = 1 + int(_receive(role.group, student))
            found = {_receive_text(role.group, student): _receive(role.group, student) for _ in range(count)}
            taught = teacher(found.pop(INPUTS), found)
            _send(role.group, taught.logits, student)
            _send(role.group, torch.empty(0) if taught.hidden is None else taught.hidden, student)
    return questions


def _send(group: Any, tensor: Tensor, to: int) -> None:
    """A tensor of any shape: its type and shape first."""
    head = torch.full((MOST_DIMS + 2,), 0)
    head[0], head[1] = TYPES.index(tensor.dtype), tensor.dim()
    head[2 : 2 + tensor.dim()] = torch.tensor(tensor.shape)
    group.send([head], to, 0).wait()
    if tensor.numel():
        group.send([tensor.detach().cpu().contiguous()], to, 0).wait()


def _receive(group: Any, source: int) -> Tensor:
    head = torch.empty(MOST_DIMS + 2, dtype=torch.int64)
    group.recv([head], source, 0).wait()
    kind, dims, *sizes = head.tolist()
    found = torch.empty(sizes[:dims], dtype=TYPES[kind])
    if found.numel():
        group.recv([found], source, 0).wait()
    return found


def _send_text(group: Any, text: str, to: int) -> None:
    _send(group, torch.tensor(list(text.encode())), to)


def _receive_text(group: Any, source: int) -> str:
    return bytes(_receive(group, source).tolist()).decode()
