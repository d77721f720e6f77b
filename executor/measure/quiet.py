"""Whether other processes use this machine: a shared core makes caches colder, and even CPU time then says too much."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

STAT = Path("/proc/stat")
TICK = 100.0  # the kernel counts hundredths of a second
WINDOW = 0.5  # s of one look
QUIET = 0.2  # cores that others may use


def busy() -> float | None:
    """Seconds of CPU that all processes have used since the start; None where the system does not say."""
    try:
        words = STAT.read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system = (float(word) for word in words[1:4])
    return (user + nice + system) / TICK


def others(look: Callable[[], float | None] = busy, wait: Callable[[float], None] = time.sleep) -> float:
    """Cores that are in use while this program sleeps; 0 where the system does not say."""
    before, started = look(), time.perf_counter()
    wait(WINDOW)
    after, passed = look(), time.perf_counter() - started
    return 0.0 if before is None or after is None else (after - before) / max(passed, WINDOW)


@dataclass
class Patience:
    """Waits for a quiet machine, `seconds` [s] in all; `seen` are the cores in use when it no longer waited."""

    seconds: float
    seen: list[float] = field(default_factory=list)

    def wait(self, look: Callable[[], float] = others) -> None:
        """Return once others are quiet, or patience is at its end."""
        found = look()
        while found > QUIET and self.seconds > 0:
            started = time.perf_counter()
            found = look()
            self.seconds -= max(time.perf_counter() - started, WINDOW)
        self.seen.append(found)

    @property
    def disturbance(self) -> float:
        """Mean cores that others used at the start of a measurement."""
        return sum(self.seen) / len(self.seen) if self.seen else 0.0
