"""Being asked to stop: SIGTERM and SIGINT set a flag that the loop reads between steps; the work goes on until then."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
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
    """Within the block the signals set the flag in place of ending the process."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signalled = True

    with handling(ask):
        yield stop


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """`handler` takes the signals within the block; nothing changes outside the main thread, which alone may set it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
