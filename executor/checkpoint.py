"""Distributed checkpoints: every rank writes its shards while the training goes on, and any layout can read them.

Tensors are known by their canonical names (those of one process) and by their place in the whole tensor, which is all
that torch.distributed.checkpoint needs to read them onto other ranks, axes and shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from executor.failures import NotSavedError
from executor.saved import Saved, complete, part, prune, sweep
from planner.errors import InputError

PATIENCE = 10
State = dict[str, Any]  # tensors and DTensors by name


class Checkpoints:
    """The checkpoints of one run in `folder`, the newest `keep` of which stay. Every rank makes one.

    `save` returns as soon as the tensors are copied; `finish` waits until all ranks have written and makes the
    checkpoint a complete one.
    """

    def __init__(self, folder: Path, keep: int, timeout: float) -> None:
        """A process group of its own, since the writing threads speak while the training does.

        `timeout` [s] is that of the training's collectives; a slow disk may take `PATIENCE` times as long.
        """
        self.folder = folder
        self.keep = keep
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=PATIENCE * timeout))
        self._pending: tuple[int, Mapping[str, Any], Future[Any]] | None = None

    def save(self, step: int, state: State, manifest: Mapping[str, Any]) -> None:
        """Begin the checkpoint of `step`, after finishing the one before it; NotSavedError as in `finish`."""
        self.finish()
        with _explained(step):
            written = async_save(state, checkpoint_id=part(self.folder, step), process_group=self._group)
        self._pending = (step, manifest, cast("Future[Any]", written))  # one without a stager of our own

    def finish(self) -> None:
        """Wait for the checkpoint under way, if any; NotSavedError on all ranks when one of them couldn't write."""
        if self._pending is None:
            return
        step, manifest, written = self._pending
        self._pending = None
        try:
            with _explained(step):
                written.result()
        except NotSavedError:
            if dist.get_rank() == 0:
                sweep(self.folder)  # a full disk has use for the room
            raise
        refused: list[str | None] = [None]
        if dist.get_rank() == 0:
            try:
                complete(self.folder, step, dict(manifest))
                prune(self.folder, self.keep)
            except (OSError, InputError) as error:
                refused = [str(error)]
        dist.broadcast_object_list(refused, group=self._group)
        if refused[0]:
            raise NotSavedError(f"the checkpoint of step {step} couldn't be completed: {refused[0]}")

    def load(self, saved: Saved, state: State) -> None:
        """Read the tensors of `state` in place, whatever layout wrote them."""
        load(state, checkpoint_id=saved.path, process_group=self._group)


def random_state(device: str) -> State:
    """The random generators of this rank."""
    found: State = {f"random.{dist.get_rank()}": torch.get_rng_state()}
    if device == "cuda":
        found[f"random.{dist.get_rank()}.cuda"] = torch.cuda.get_rng_state()
    return found


def set_random_state(state: State, device: str) -> None:
    """Set the generators to what `random_state` returned on this rank; nothing where `state` has none."""
    name = f"random.{dist.get_rank()}"
    if name in state:
        torch.set_rng_state(state[name])
    if device == "cuda" and f"{name}.cuda" in state:
        torch.cuda.set_rng_state(state[f"{name}.cuda"])


def finite(state: State) -> bool:
    """Whether every floating-point value that this rank holds is a number."""
    tensors = (_local(value) for value in state.values())
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())


def _local(value: Any) -> Tensor:
    local: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return local


@contextmanager
def _explained(step: int) -> Iterator[None]:
    """Turns the many exceptions of a failed write into one sentence that names the ranks and what each met."""
    try:
        yield
    except CheckpointException as error:
        reasons = sorted({_reason(failure[0]) for failure in error.failures.values()})
        ranks = ", ".join(str(rank) for rank in sorted(error.failures))
        text = f"rank {ranks} couldn't write the checkpoint of step {step}: {'; '.join(reasons)}"
        raise NotSavedError(text) from None


def _reason(error: BaseException) -> str:
    """What the operating system said; torch's archive writer keeps it to itself."""
    text = str(error).strip().splitlines()[0]
    return "the file system took no more data; is the disk full?" if "inline_container" in text else text
