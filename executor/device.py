"""The one switch between CPUs with gloo and NVIDIA GPUs with NCCL: everything else is the same code."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from hwprofiles.faults import Fault, InputError


@dataclass(frozen=True)
class Device:
    """`kind` is torch's device type, `backend` the collectives' library, `count` how many devices this machine has."""

    kind: str
    backend: str
    count: int

    def of(self, rank: int) -> torch.device:
        """The device of a local rank; GPUs are dealt in turn."""
        return torch.device("cpu") if self.kind == "cpu" else torch.device(self.kind, rank % self.count)

    def claim(self, rank: int) -> torch.device:
        """The device of a local rank, made the current one of this process."""
        device = self.of(rank)
        if self.kind != "cpu":
            torch.cuda.set_device(device)
        return device

    def synchronize(self) -> None:
        """Wait for the work queued on the current device; a CPU has none."""
        if self.kind != "cpu":
            torch.cuda.synchronize()

    def clock(self) -> tuple[float, float]:
        """(wall, busy) seconds once the queued work is done.

        Busy is the CPU time of this process's threads on a CPU, and the wall clock on a GPU, which has no such count.
        """
        self.synchronize()
        wall = time.perf_counter()
        return wall, time.process_time() if self.kind == "cpu" else wall

    def memory(self) -> int:
        """Bytes free on the current device: of the machine on a CPU, of the GPU otherwise."""
        if self.kind != "cpu":
            return torch.cuda.mem_get_info()[0]
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 (one line of a system file)
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def device(kind: str = "auto") -> Device:
    """The device of a kind: cpu, cuda, or auto (GPUs where there are any). Raises InputError for a kind not here."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" or (kind == "auto" and gpus):
        if not gpus:
            raise InputError(Fault("device", "this machine has no GPU that torch can use; take cpu", kind))
        return Device("cuda", "nccl", gpus)
    if kind in {"cpu", "auto"}:
        return Device("cpu", "gloo", 1)
    raise InputError(Fault("device", "expected auto, cpu or cuda", kind))
