"""kill -9 of a rank at twenty random moments: every time the run goes on from a whole checkpoint, an interval back."""

import re
import signal
import threading
import time

import numpy as np
import pytest
import torch

from executor.ranks import Ranks
from executor.run import run
from executor.saved import found
from planner.errors import RunFailed
from planner.strategy import Choices
from tests.executor.runs import kill, options, plan, tensors

KILLS = 20
EVERY = 5  # steps between two checkpoints
LONGEST = 5.0  # s into the training


@pytest.mark.timeout(900)
def test_twenty_kills_lose_an_interval_at_most(tmp_path, monkeypatch):
    """No checkpoint is ever damaged, none is ever older than one interval, and the last run ends where one would."""
    monkeypatch.setattr("executor.ranks.GRACE", 1.0)
    job, draw, folder = (
        plan("kimi-k2", choices=Choices(zero=2), ep=8),
        np.random.default_rng(20),
        tmp_path / "checkpoints",
    )
    lost = []
    with Ranks(2, timeout=60) as pool:
        for number in range(KILLS):
            pool.run(time.sleep, 0)  # the ranks are there; now they may die
            timer = threading.Timer(draw.uniform(0, LONGEST), kill(pool, int(draw.integers(2)), signal.SIGKILL))
            timer.start()
            with pytest.raises(RunFailed, match="killed by SIGKILL"):
                run(job, options(tmp_path, steps=10**6, every=EVERY, resume=number > 0), pool)
            timer.join()
            newest = found(folder)[0].step if found(folder) else 0
            story = (tmp_path / "failure.txt").read_text(encoding="utf-8")
            steps = [int(step) for step in re.findall(r"Error: .* in step (\d+)", story) if int(step)]
            lost += [steps[-1] - 1 - newest] if steps else []
            for saved in found(folder):
                assert all(bool(torch.isfinite(value).all()) for value in tensors(saved).values())
            print(  # noqa: T201 (a benchmark is read)
                f"kill {number + 1}: newest checkpoint {newest}, steps lost {lost[-1] if steps else 'none yet'}"
            )
        last = found(folder)[0].step + 3
        outcome = run(job, options(tmp_path, steps=last, every=EVERY, resume=True), pool)
    assert outcome.record.steps[-1].step == last
    assert lost
    assert max(lost) <= EVERY
