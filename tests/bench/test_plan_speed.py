"""How long one plan and the start of the program take here."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from planner.estimate import estimate
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import KIMI_K2, setting

ROOT = Path(__file__).parents[2]
REPEATS = 30


def test_one_estimate():
    """Median time of one estimate of Kimi K2 on 10,240 GPUs."""
    where = setting(KIMI_K2, 10240, Choices(recompute="full"), Workload(4096, 10240, 15.5e12))
    degrees = Degrees(10240, pp=16, ep=16)
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        found = estimate(where, degrees)
        times.append(time.perf_counter() - started)
    print(f"\none estimate: {1e3 * statistics.median(times):.2f} ms (step {found.step.total:.2f} s)")  # noqa: T201  the figure is the point
    assert found.step.total > 0.0


def test_help():
    """Best of five starts of `plan --help`, each a fresh process."""
    command = [sys.executable, "-c", "from planner.cli import main; raise SystemExit(main())", "--help"]
    times = []
    for _ in range(5):
        started = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        times.append(time.perf_counter() - started)
    print(f"\nplan --help: {1e3 * min(times):.0f} ms")  # noqa: T201  the figure is the point
    assert "Usage" in done.stdout or "usage" in done.stdout
