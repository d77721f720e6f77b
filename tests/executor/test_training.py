"""`plan train` end to end, in small: every shipped recipe, and what the loop promises."""

import json
import math
import os
import signal
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from executor.ranks import Ranks  # noqa: E402
from executor.saved import found, place  # noqa: E402
from executor.training.recipe import read  # noqa: E402
from executor.training.run import Options, train  # noqa: E402
from executor.training.tune import tune  # noqa: E402
from planner.cli import main  # noqa: E402
from planner.errors import InputError, RunFailed  # noqa: E402
from tests.executor.runs import When, tensors  # noqa: E402
from tests.executor.trainings import EXAMPLES, SHIPPED, TINY, losses, recipe, run, shipped  # noqa: E402


@pytest.fixture(scope="module")
def pool():
    """Four ranks for all tests of this file."""
    with Ranks(4, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def dense(pool, tmp_path_factory):
    """The folder of the dense recipe, trained in small."""
    out = tmp_path_factory.mktemp("dense")
    run(shipped("dense-lm", out), pool)
    return out


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_trains(pool, dense, tmp_path, name):
    """Each recipe of examples/, a few steps of a narrow model: losses, evaluations, weights, all that it promises."""
    made = shipped(name, tmp_path, dense if name == "continued-lm" else None)
    told = run(made, pool).told
    assert told == json.loads((tmp_path / "training.json").read_text("utf-8"))
    assert [row["step"] for row in told["curve"]] == [1, 2, 3, 4]
    assert all(math.isfinite(row["loss"]) for row in told["curve"])
    assert [row["step"] for row in told["evaluations"]] == [2, 4]
    assert {*made.evaluation.metrics} <= told["evaluations"][0].keys()
    assert told["final"]["test"]["samples"] > 0
    assert ("report" in told["final"]["test"]) == (told["data"]["objective"] == "classification")
    assert found(tmp_path / "final")[0].step >= 2
    assert (told["forgetting"] is not None) == (name == "continued-lm")


def test_nine_recipes_are_shipped():
    """There are at least six, each says at its head how it is run, and all of them are read without a fault."""
    assert len(SHIPPED) >= 6
    for name in SHIPPED:
        assert f"plan train examples/{name}.toml" in (EXAMPLES / f"{name}.toml").read_text("utf-8")
        read(EXAMPLES / f"{name}.toml")


def test_a_training_goes_on_bit_for_bit(pool, tmp_path):
    """Stopped and resumed mid-epoch with 8-bit moments, dropout, averages and a plateau: the same losses, all equal."""
    how = {
        "optimizer__name": "adam-8bit",
        "regularisation": {"dropout": 0.2, "ema": 0.9},
        "schedule": {"name": "plateau", "patience": 1, "factor": 0.5},
        "evaluation__every": 2,
        "run__checkpoint_every": 2,
        "parallel__dp": 2,
        "parallel__zero": 1,
    }
    whole = run(recipe(tmp_path / "whole", **how), pool)
    run(recipe(tmp_path / "cut", **how, run__steps=4), pool)
    resumed = run(recipe(tmp_path / "cut", **how), pool, resume=True)
    assert losses(resumed) == losses(whole)
    assert resumed.told["evaluations"] == whole.told["evaluations"]
    assert resumed.told["final"] == whole.told["final"]
    first, second = (tensors(found(tmp_path / name / "checkpoints")[0]) for name in ("whole", "cut"))
    assert first.keys() == second.keys()
    assert {key.split(".")[0] for key in first} == {"model", "optimizer", "average", "random"}
    assert all(torch.equal(first[key], second[key]) for key in first if not key.startswith("random"))


def test_a_training_goes_on_on_another_layout(pool, tmp_path):
    """Two sharded ranks write, a tensor-parallel pair goes on: the losses stay those of one training."""
    how = {"run__checkpoint_every": 4, "optimizer__name": "muon"}
    whole = run(recipe(tmp_path / "whole", **how), pool)
    run(recipe(tmp_path / "cut", **how, run__steps=4, parallel__dp=2, parallel__zero=3), pool)
    resumed = run(recipe(tmp_path / "cut", **how, parallel__tp=2), pool, resume=True)
    assert losses(resumed) == pytest.approx(losses(whole), abs=1e-4)


def test_what_is_evaluated_does_not_depend_on_the_ranks(pool):
    """Validation scores count every sample once on one rank and on three axes, a cut last batch included."""
    how = {"evaluation__every": 1, "run__steps": 1, "evaluation__samples": 27}
    alone = run(recipe(**how), pool).told["evaluations"]
    for axes in ({"dp": 4}, {"pp": 2, "dp": 2, "zero": 1}, {"tp": 2, "cp": 2}):
        many = run(recipe(**how, **{f"parallel__{key}": value for key, value in axes.items()}), pool).told[
            "evaluations"
        ]
        assert many[0]["loss"] == pytest.approx(alone[0]["loss"], abs=1e-5)
        assert many[0]["accuracy"] == pytest.approx(alone[0]["accuracy"], abs=1e-9)


def test_early_stopping_goes_back_to_the_best(pool, tmp_path):
    """A rate that ruins the model: training ends after the patience, with the weights of the best evaluation."""
    how = {"evaluation__every": 1, "run__steps": 40, "regularisation": {"patience": 2}, "data__test": 0.0}
    told = run(recipe(tmp_path, **how, optimizer={"name": "sgd", "learning_rate": 3.0}), pool).told
    assert told["stopped_early"]
    assert len(told["curve"]) < 40
    best = min(told["evaluations"], key=lambda row: row["loss"])
    assert told["best"]["step"] == best["step"] == len(told["curve"]) - 2
    assert told["final"]["validation"]["loss"] == pytest.approx(best["loss"], abs=1e-6)
    assert told["final"]["validation"]["loss"] < told["evaluations"][-1]["loss"]


def test_averages_are_what_is_evaluated(pool, tmp_path):
    """With a decay of nearly 1 the averages stay at the first weights, and so do the evaluations and the final ones."""
    how = {"evaluation__every": 4, "run__steps": 8}
    plain = run(recipe(**how), pool).told
    told = run(recipe(tmp_path, **how, regularisation={"ema": 0.999999}), pool).told
    first, last = told["evaluations"]
    assert last["loss"] == pytest.approx(first["loss"], abs=1e-3)
    assert plain["evaluations"][-1]["loss"] < last["loss"] - 0.3
    assert losses_of(told) == losses_of(plain)


def losses_of(told):
    """The training losses of a training.json."""
    return [row["loss"] for row in told["curve"]]


def test_dropout_repeats_and_smoothing_raises_the_loss(pool):
    """The same seed and layout draw the same masks; smoothed labels cost more in training, not in evaluation."""
    dropped = [run(recipe(regularisation={"dropout": 0.3}, run__steps=3), pool) for _ in range(2)]
    plain = run(recipe(run__steps=3), pool)
    assert losses(dropped[0]) == losses(dropped[1]) != losses(plain)
    full = run(recipe(regularisation={"dropout": 0.3}, run__steps=3, parallel__recompute="full"), pool)
    assert losses(full) == pytest.approx(losses(dropped[0]), abs=1e-5)
    smooth = [
        losses(run(recipe(regularisation={"label_smoothing": 0.5}, run__steps=3, **how), pool))
        for how in ({}, {"parallel__tp": 2})
    ]
    assert smooth[0] == pytest.approx(smooth[1], abs=1e-5)
    assert smooth[0][0] != losses(plain)[0]


def test_forgetting_is_told(pool, tmp_path):
    """Weights of an earlier training: read on another layout, judged on the old data before and after the new."""
    old = run(recipe(tmp_path / "old", run__steps=30), pool).told
    digits = tmp_path / "new.txt"
    digits.write_text("0123456789" * 4000, encoding="utf-8")
    data = {"kind": "text", "path": str(digits), "seq_len": 16}
    made = recipe(tmp_path / "new", data=data, run__start_from=str(tmp_path / "old"), run__steps=20, parallel__tp=2)
    told = run(made, pool).told
    before, after = (told["forgetting"][when]["loss"] for when in ("before", "after"))
    assert before == pytest.approx(old["final"]["validation"]["loss"], abs=1e-4)
    assert after > before + 0.1
    assert told["final"]["validation"]["loss"] < 2.0
    assert told["started_with_first_values"] == []
    with pytest.raises(InputError, match="has no final/ weights"):
        train(Options(recipe(run__start_from=str(tmp_path / "nowhere"))), pool)


def test_a_request_to_stop_is_resumed(pool, tmp_path):
    """SIGTERM: what is done is saved, told as stopped, and a resumed training tells the whole curve."""
    folder = tmp_path / "checkpoints"
    how = {"run__steps": 400, "run__checkpoint_every": 3, "evaluation__every": 0}
    with When(folder, 3, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        outcome = run(recipe(tmp_path, **how), pool)
    done = len(outcome.told["curve"])
    assert outcome.stopped
    assert 3 <= done < 400
    assert place(folder, done).is_dir()
    rest = run(recipe(tmp_path, **how | {"run__steps": done + 2}), pool, resume=True)
    assert [row["step"] for row in rest.told["curve"]] == list(range(1, done + 3))


def test_a_diverging_training_is_told(pool):
    """A loss that is no number ends the run with one sentence that names the key to lower."""
    ruin = {"weight_decay": 100.0, "exclude": []}
    how = {"optimizer": {"name": "sgd", "learning_rate": 100.0}, "run__steps": 40, "evaluation__every": 0}
    with pytest.raises(RunFailed, match=r"try a lower optimizer\.learning_rate"):
        run(recipe(**how, regularisation=ruin), pool)


def test_a_search_finds_the_rate_that_learns(tmp_path):
    """Of rates over five decades the search picks one that trains, and its best.toml is a recipe with that rate."""
    search = {"trials": 3, "learning_rate": [1e-6, 1e-1]}
    table = {**TINY, "search": search, "run": {"steps": 12, "out": str(tmp_path / "out")}}
    told = tune(recipe(table=table))
    assert [trial["steps"] for trial in told["trials"]] == [4, 4, 4, 12]
    losses_by_rate = {trial["values"]["learning_rate"]: trial["loss"] for trial in told["trials"][:3]}
    assert told["best"]["values"]["learning_rate"] == min(losses_by_rate, key=losses_by_rate.get)
    best = read(Path(told["best_recipe"]))
    assert best.optimizer.learning_rate == told["best"]["values"]["learning_rate"]


def test_the_command(tmp_path, capsys):
    """A dry run shows the recipe, a run prints evaluations and writes its folder, a fault is one line and exit 3."""
    from executor.training.toml import toml  # noqa: PLC0415

    path = tmp_path / "small.toml"
    path.write_text(toml(TINY), encoding="utf-8")
    assert main(["train", str(path), "--dry-run"]) == 0
    assert "small, " in capsys.readouterr().out
    arguments = ["train", str(path), "--out", str(tmp_path / "out"), "--set", "run.steps=4", "--ranks", "2"]
    assert main(arguments) == 0
    assert "At the end" in capsys.readouterr().out
    assert main([*arguments, "--set", "run.steps=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["strategy"]["dp"] == 2
    assert main(["train", str(path), "--set", "run.step=4"]) == 3
    assert capsys.readouterr().err == "plan: small.toml: run.step: no such key; did you mean 'steps'?\n"
