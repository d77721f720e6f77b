"""The fingerprint of a machine: what must be the same for its measurements to hold."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def name(device: str) -> str:
    """The processor or the GPU that measures."""
    return torch.cuda.get_device_name() if device == "cuda" else _processor()


def fingerprint(device: str, gpu: str) -> dict[str, str]:
    """Words on hardware and software; `gpu` is the profile that the measurements belong to."""
    found = {
        "gpu": gpu,
        "processor": _processor(),
        "cores": str(cores()),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device == "cuda":
        found |= {"device": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
        found["nccl"] = ".".join(str(part) for part in torch.cuda.nccl.version())
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
