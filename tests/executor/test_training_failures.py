"""`plan train` when it is interrupted, repeated, resumed wrongly, killed, or started by torchrun."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip("torch")

from executor.ranks import Ranks
from executor.saved import found
from executor.training.run import Options, train
from executor.training.toml import toml
from planner.errors import InputError
from tests.executor.runs import When, kill
from tests.executor.trainings import TINY, losses, recipe, run

SAVING = {"run__checkpoint_every": 2, "evaluation__every": 0}


@pytest.fixture(scope="module")
def pool():
    """Two ranks; the next run starts anew after one that failed."""
    with pytest.MonkeyPatch.context() as patch, Ranks(2, timeout=60) as made:
        patch.setattr("executor.ranks.GRACE", 1.0)
        yield made


def test_a_shorter_training_replaces_what_an_earlier_one_left(pool, tmp_path):
    """The same folder again: the weights and the best are those of the training that ran last."""
    how = {"regularisation": {"patience": 3}, "evaluation__every": 2}
    run(recipe(tmp_path, **how, run__steps=6), pool)
    run(recipe(tmp_path, **how, run__steps=2), pool)
    assert [saved.step for saved in found(tmp_path / "final")] == [2]
    assert [saved.step for saved in found(tmp_path / "best")] == [2]


def test_a_checkpoint_of_something_else_is_refused(pool, tmp_path):
    """Other data, another model, another optimizer: one sentence each, all at once, before any rank starts."""
    run(recipe(tmp_path, **SAVING, run__steps=2), pool)
    with pytest.raises(InputError, match="go on with --resume"):
        run(recipe(tmp_path, **SAVING, run__steps=4), pool)
    other = {"data__seq_len": 8, "data__validation": 0.2, "model__ffn": 64, "optimizer__name": "lion"}
    with pytest.raises(InputError) as caught:
        run(recipe(tmp_path, **SAVING, **other, run__steps=4), pool, resume=True)
    text = str(caught.value)
    assert "data: the checkpoint" in text
    assert "is of another model" in text
    assert "optimizer.name is 'lion'" in text
    with pytest.raises(InputError, match="is this training's own out"):
        run(recipe(tmp_path, run__start_from=str(tmp_path)), pool)


def test_a_killed_rank_is_recovered_from(pool, tmp_path):
    """kill -9 of a rank with one restart allowed: the curve is whole and equals that of a training in peace."""
    how = SAVING | {"run__steps": 40, "parallel__dp": 2}
    peaceful = run(recipe(tmp_path / "peace", **how), pool)
    with When(tmp_path / "killed" / "checkpoints", 6, kill(pool, 1, signal.SIGKILL)):
        outcome = run(recipe(tmp_path / "killed", **how), pool, restarts=1)
    assert outcome.told["provenance"]["resumed_from"] >= 6
    assert losses(outcome) == losses(peaceful)
    assert "rank 1" in (tmp_path / "killed" / "failure.txt").read_text("utf-8")


def test_a_best_that_is_newer_than_the_checkpoint_is_found_again(pool, tmp_path):
    """Best weights that were saved behind the checkpoint that a training goes on from are found and saved anew."""
    how = {"regularisation": {"patience": 9}, "evaluation__every": 1, "run__checkpoint_every": 4}
    made = recipe(tmp_path, **how, run__steps=6)
    run(made, pool)
    for saved in found(tmp_path / "checkpoints"):
        if saved.step > 4:
            for path in saved.path.iterdir():
                path.unlink()
            saved.path.rmdir()
    outcome = train(Options(made, resume=True), pool)
    assert outcome.told["provenance"]["resumed_from"] == 4
    assert [saved.step for saved in found(tmp_path / "best")] == [outcome.told["best"]["step"]]


def test_torchrun_trains_a_recipe(root, tmp_path):
    """Two ranks of torchrun: dp takes them, rank 0 prints training.json, and a second start goes on."""
    path, out = tmp_path / "small.toml", tmp_path / "out"
    path.write_text(toml({**TINY, "run": {"steps": 4, "checkpoint_every": 2}}), encoding="utf-8")

    def start(*more):
        command = [*(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")]
        command += ["-m", "executor.commands.train", str(path), "--out", str(out), "--json", *more]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first = start()
    assert (first["ranks"], first["strategy"]["dp"], len(first["curve"])) == (2, 2, 4)
    second = start("--resume", "--set", "run.steps=6")
    assert len(second["curve"]) == 6
    assert second["curve"][:4] == first["curve"]


def test_options_without_a_folder_have_no_checkpoints():
    """What a training without out has: no folder, and still steps and a seed."""
    options = Options(recipe())
    assert (options.folder, options.out, options.steps, options.seed) == (None, None, 8, 0)
    assert replace(options, resume=True).resume
