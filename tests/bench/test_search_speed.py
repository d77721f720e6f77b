"""How fast the search is here: figures to read, not limits to pass. `make bench` prints them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = {
    "Kimi K2 on 10,240 H100, 10,240 sequences": (10240, 10240),
    "Kimi K2 on 131,072 H100, 131,072 sequences": (131072, 131072),
}
SEARCH = """
import resource, sys, time
from planner.search.space import whole_space
from planner.search.sweep import sweep
from planner.strategy import Degrees, Workload
from tests.planner.models import KIMI_K2, case, setting

gpus, batch = map(int, sys.argv[1:])
where = setting(KIMI_K2, gpus, workload=Workload(4096, batch, 15.5e12))
here = case(where, Degrees(gpus))
started = time.perf_counter()
found = sweep(here, where, whole_space(here, 8), "time", 10, where.gpu.hbm_capacity)
wall = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{found.legal:,} legal candidates, {found.fitting:,} fit; {wall:.2f} s, {found.legal / wall:,.0f} candidates/s; "
      f"peak memory {peak:,.0f} MiB; best step {found.best.time[0]:.2f} s")
"""


def fresh(*command: str) -> tuple[float, str]:
    """Seconds and output of a command in a process of its own."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - started, done.stdout.strip()


@pytest.mark.parametrize("name", CASES)
def test_search(name):
    """Candidates per second, wall time and peak resident memory of a whole search, in a fresh process."""
    _, text = fresh("-c", SEARCH, *map(str, CASES[name]))
    print(f"\n{name}: {text}")  # noqa: T201  the figure is the point
    assert "candidates/s" in text
