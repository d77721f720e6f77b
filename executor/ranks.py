"""A pool of processes, one a rank, that runs one function after another: torch is imported once, not once a plan.

Every run gets process groups of its own, so a failed run leaves nothing behind. A rank is a plain child
(`python -m executor.ranks`) with the environment that makes CPU timings repeatable.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # glibc would return large temporaries to the kernel and pay a page fault for each page again
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
}
TIMEOUT = 60.0  # s, of a collective
GRACE = 10.0  # s that the other ranks get to report once one has failed


class RankFailed(Exception):
    """Ranks that failed: `failures` by rank, the traceback of the rank or how its process ended."""

    def __init__(self, failures: dict[int, str]) -> None:
        """Name each rank with the last line of its failure."""
        self.failures = failures
        lines = (f"rank {rank}: {text.strip().splitlines()[-1]}" for rank, text in sorted(failures.items()))
        super().__init__("; ".join(lines))


@dataclass
class _Rank:
    process: subprocess.Popen[bytes]
    channel: Connection


class Ranks:
    """`with Ranks(4) as pool: pool.run(function, argument)` calls `function` on each rank and lists the results.

    `function` (picklable by name) runs with the default process group of its ranks initialised. `timeout` [s] bounds
    each collective; `backend` is torch's name, None the one for CPUs.
    """

    def __init__(self, ranks: int, *, timeout: float = TIMEOUT, backend: str = "gloo") -> None:
        """Start nothing yet: the first run starts the processes it needs."""
        self.ranks = ranks
        self.timeout = timeout
        self.backend = backend
        self._pool: list[_Rank] = []
        self._runs = 0
        self._store: Any = None

    def __enter__(self) -> Self:
        """The pool itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the processes."""
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the ranks that run."""
        return [rank.process.pid for rank in self._pool]

    def run(self, function: Callable[..., Any], *arguments: Any, ranks: int | None = None) -> list[Any]:
        """Results of `function(*arguments)` on the first `ranks` (all) ranks, in order; RankFailed when one failed."""
        count = self.ranks if ranks is None else ranks
        self._start(count)
        self._runs += 1
        setup = (self.backend, self._store.port, f"run{self._runs}", count, self.timeout)
        for index, rank in enumerate(self._pool[:count]):
            rank.channel.send_bytes(pickle.dumps((index, setup, function, arguments)))
        results, failures = self._collect(count)
        if failures:
            for failed in self._pool:
                failed.process.kill()
            self.close()
            raise RankFailed(failures)
        return [results[index] for index in range(count)]

    def close(self) -> None:
        """End all processes; the next run starts new ones."""
        for rank in self._pool:
            rank.channel.close()
        for rank in self._pool:
            try:
                rank.process.wait(timeout=2.0)
            except subprocess.TimeoutExpired:
                rank.process.kill()
                rank.process.wait()
        self._pool.clear()
        self._store = None

    def _start(self, count: int) -> None:
        if self._store is None:
            import torch.distributed as dist  # noqa: PLC0415 (a pool that never runs needs no torch)

            self._store = dist.TCPStore(  # type: ignore[attr-defined]
                "localhost", 0, is_master=True, wait_for_workers=False
            )
        self._pool += [_spawn() for _ in range(len(self._pool), count)]

    def _collect(self, count: int) -> tuple[dict[int, Any], dict[int, str]]:
        """What the ranks answered: results and failures by rank; the rest of a failed run gets GRACE to answer."""
        waiting = {rank.channel: index for index, rank in enumerate(self._pool[:count])}
        results: dict[int, Any] = {}
        failures: dict[int, str] = {}
        deadline: float | None = None
        while waiting:
            ready = wait(list(waiting), None if deadline is None else max(deadline - time.monotonic(), 0.0))
            if not ready:
                break
            for channel in ready:
                index = waiting.pop(channel)  # type: ignore[call-overload]
                try:
                    done, value = pickle.loads(channel.recv_bytes())  # type: ignore[union-attr]  # noqa: S301 (our own child)
                except (EOFError, ConnectionError):
                    done, value = False, f"the process ended with code {self._pool[index].process.wait()}"
                (results if done else failures)[index] = value
            if failures and deadline is None:
                deadline = time.monotonic() + GRACE
        failures |= dict.fromkeys(waiting.values(), "the rank gave no answer")
        return results, failures


def _spawn() -> _Rank:
    """A new child and the channel to it."""
    ours, theirs = Pipe()
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": path}
    process = subprocess.Popen(  # noqa: S603 (our own module)
        [sys.executable, "-m", "executor.ranks", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt of the terminal reaches the parent, which ends its ranks
    )
    theirs.close()
    return _Rank(process, ours)


def _serve(channel: Connection) -> None:
    """Answer calls until the parent is gone."""
    while True:
        try:
            index, setup, function, arguments = pickle.loads(channel.recv_bytes())  # noqa: S301 (our own parent)
        except EOFError:
            return
        try:
            answer = pickle.dumps((True, _call(index, setup, function, arguments)))
        except BaseException:  # noqa: BLE001 (whatever it was, the parent reports it)
            answer = pickle.dumps((False, traceback.format_exc()))
        try:
            channel.send_bytes(answer)
        except OSError:  # the parent gave up on this run
            return


def _call(index: int, setup: tuple[str, int, str, int, float], function: Callable[..., Any], arguments: Any) -> Any:
    """One call with a process group of its own."""
    import torch  # noqa: PLC0415 (the parent imports this module without torch)
    import torch.distributed as dist  # noqa: PLC0415

    backend, port, prefix, count, timeout = setup
    limit = timedelta(seconds=timeout)
    torch.set_num_threads(1)
    main = dist.TCPStore("localhost", port, is_master=False, timeout=limit)  # type: ignore[attr-defined]
    store = dist.PrefixStore(prefix, main)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=index, world_size=count, timeout=limit)
    try:
        return function(*arguments)
    finally:
        dist.destroy_process_group()
        _forget()


def _forget() -> None:
    """Drop what DTensor remembers of meshes: equal meshes of a later run have other process groups."""
    from torch.distributed.tensor import _redistribute  # noqa: PLC0415
    from torch.distributed.tensor.debug import _clear_sharding_prop_cache  # noqa: PLC0415

    _clear_sharding_prop_cache()
    _redistribute._gen_transform_infos.cache_clear()  # noqa: SLF001
    gc.collect()  # modules and their groups refer to each other, and a group keeps some ten threads


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
    os._exit(0)  # nothing is left to save, and tearing torch down takes a second
