"""Progress of a training on stderr: one line that is written over, with step, loss, tokens per second and ETA."""

from __future__ import annotations

import sys
import time


class Progress:
    """Shows each step when `shown`; the rate and the ETA are of the steps since the start."""

    def __init__(self, start: int, steps: int, tokens: int, *, shown: bool) -> None:
        """`tokens` per step; steps `start` to `steps` are to come."""
        self._start, self._steps, self._tokens, self._shown = start, steps, tokens, shown
        self._began = time.perf_counter()

    def step(self, done: int, loss: float) -> None:
        """After `done` steps in all, the last of which had this loss."""
        if not self._shown:
            return
        each = (time.perf_counter() - self._began) / (done - self._start)
        rate, left = self._tokens / each, round(each * (self._steps - done))
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        text = f"step {done}/{self._steps}  loss {loss:.4f}  {rate:,.0f} tokens/s  ETA {clock}"
        sys.stderr.write(f"\r\x1b[K{text}" + ("\n" if done == self._steps else ""))
        sys.stderr.flush()
