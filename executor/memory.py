"""Memory of this machine and of this process [B]: what is free for ranks, and the peak that a rank reached."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

CGROUP = Path("/sys/fs/cgroup")
UNLIMITED = 2**60


def available() -> float:
    """Bytes that new processes can take: what the kernel says is available, or less where a limit of ours is lower."""
    limits = [_free(), _group()]
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        limits.append(float(soft))
    return min(limits)


def reset_peak(torch: Any, device: str) -> None:
    """Start the measurement of `peak` anew, where the system can."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # the peak then counts from the start of the process


def peak(torch: Any, device: str) -> float:
    """Most bytes that this process held: of the device's memory, or resident."""
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    found = _field(Path("/proc/self/status"), "VmHWM")
    if found is not None:
        return found
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)


def _free() -> float:
    found = _field(Path("/proc/meminfo"), "MemAvailable")
    return found if found is not None else float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _group() -> float:
    """Room left in the control group of a container (cgroup v2)."""
    try:
        limit = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = (CGROUP / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return float(UNLIMITED)
    return float(UNLIMITED) if limit == "max" else float(int(limit) - int(used))


def _field(path: Path, name: str) -> float | None:
    """A field of a /proc file in bytes."""
    try:
        match = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(encoding="ascii"), flags=re.MULTILINE)
    except OSError:
        return None
    return float(match[1]) * 1024 if match else None
