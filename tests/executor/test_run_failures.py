import os
import resource
import signal
from pathlib import Path

import pytest
import torch.distributed as dist

from executor.ranks import Ranks
from executor.run import run
from executor.saved import found
from executor.shrink import Size
from planner.errors import RunFailed
from planner.strategy import Choices
from tests.executor.runs import When, kill, options, plan

PLAN = plan("llama3.1-8b", choices=Choices(zero=2))
MANY = 100_000  # steps; no test waits for the end


@pytest.fixture(scope="module")
def pool():
    """Two ranks; a run that fails leaves none, and the next one starts anew. Nobody waits long for a silent one."""
    with pytest.MonkeyPatch.context() as patch, Ranks(2, timeout=30) as made:
        patch.setattr("executor.ranks.GRACE", 1.0)
        yield made


def test_a_request_to_stop_saves_and_returns(pool, tmp_path):
    """SIGTERM: the step under way is finished and saved, and the record tells what was done."""
    folder = tmp_path / "checkpoints"
    with When(folder, 3, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        outcome = run(PLAN, options(tmp_path, steps=MANY, every=3), pool)
    last = outcome.record.steps[-1].step
    assert outcome.stopped
    assert 3 <= last < MANY
    assert found(folder)[0].step == last
    assert (tmp_path / "record.json").exists()


def test_a_loss_that_is_no_number_stops_the_run(pool, tmp_path):
    """Weights that have overflowed are never saved; the checkpoint before them stays the newest."""
    run(PLAN, options(tmp_path, steps=2, every=2), pool)
    with pytest.raises(RunFailed) as caught:
        run(PLAN, options(tmp_path, steps=MANY, every=1, resume=True, learning_rate=1e38), pool)
    text = str(caught.value)
    assert text.startswith(("the loss is", "the weights are not finite after step"))
    assert "lower --learning-rate" in text
    assert found(tmp_path / "checkpoints")


def test_a_killed_rank_is_named(pool, tmp_path):
    """kill -9 of a rank: a clear sentence with the checkpoint to go on from, and every rank's own story in a file."""
    folder, how = tmp_path / "checkpoints", options(tmp_path, steps=MANY, every=3)
    with When(folder, 6, kill(pool, 1, signal.SIGKILL), delay=0.037), pytest.raises(RunFailed) as caught:
        run(PLAN, how, pool)
    text = str(caught.value)
    newest = found(folder)[0]
    assert "rank 1: the process was killed by SIGKILL" in text
    assert f"the checkpoint of step {newest.step}" in text
    assert "go on with --resume" in text
    assert "rank 0" in (tmp_path / "failure.txt").read_text(encoding="utf-8")


def test_a_failure_is_recovered_from_when_that_is_allowed(pool, tmp_path):
    """With restarts the run starts again by itself from the newest checkpoint and ends as if nothing had been."""
    with When(tmp_path / "checkpoints", 3, kill(pool, 0, signal.SIGKILL)):
        outcome = run(PLAN, options(tmp_path, steps=60, every=3, restarts=1), pool)
    resumed = outcome.record.provenance["resumed_from"]
    assert resumed >= 3
    assert [step.step for step in outcome.record.steps] == list(range(resumed + 1, 61))


def test_a_full_disk_leaves_the_checkpoints_before_it(pool, tmp_path):
    """A rank that can't write is named with the step, and the last complete checkpoint is still the newest."""
    folder = tmp_path / "checkpoints"

    def fill():
        resource.prlimit(pool.pids[1], resource.RLIMIT_FSIZE, (1000, 1000))

    with When(folder, 3, fill), pytest.raises(RunFailed) as caught:
        run(PLAN, options(tmp_path, steps=MANY, every=3), pool)
    newest = found(folder)[0]
    assert f"rank 1 couldn't write the checkpoint of step {newest.step + 3}" in str(caught.value)
    assert "File too large" in str(caught.value) or "is the disk full?" in str(caught.value)
    assert f"the checkpoint of step {newest.step} in" in str(caught.value)
    assert not list(folder.glob("*.part"))


def test_a_rank_that_hangs_is_found_by_the_others(pool, tmp_path, monkeypatch):
    """The collective that waited for it, its place in the step and the silent rank are named."""
    monkeypatch.setattr(pool, "timeout", 4)
    how = options(tmp_path, steps=MANY, every=50, timeout=4.0)  # seldom, since a disk is given more time
    with When(tmp_path / "checkpoints", 50, kill(pool, 1, signal.SIGSTOP)), pytest.raises(RunFailed) as caught:
        run(PLAN, how, pool)
    text = str(caught.value)
    assert "timed out in step" in text
    assert "rank 1: the rank gave no answer" in text


def starve():
    """Leave rank 1 the memory to start and not to hold a wide model."""
    if dist.get_rank() == 1:
        size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, size + 2**30))


def test_a_rank_without_memory_says_so(pool):
    """The rank whose allocation failed is told, with the step, and not those that then waited for it."""
    pool.run(starve)
    wide = options(steps=1, size=Size(hidden=2048, layers=2, seq_len=32))
    with pytest.raises(RunFailed, match=r"^rank 1: out of memory in step [01]: .*; no checkpoint was written"):
        run(PLAN, wide, pool)
