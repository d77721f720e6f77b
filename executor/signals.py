"""Being asked to stop: SIGTERM and SIGINT set a flag that the loop reads between steps; the work goes on until then."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Stop:
    """`asked` once a signal came, or the process that started this one is gone."""

    signalled: bool = False
    parent: int = field(default_factory=os.getppid)

    @property
    def asked(self) -> bool:
        """Whether to stop after this step."""
        return self.signalled or os.getppid() != self.parent


@contextmanager
def stopping() -> Iterator[Stop]:
    """Within the block the signals set the flag in place of ending the process; only the main thread can do so."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signalled = True

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
