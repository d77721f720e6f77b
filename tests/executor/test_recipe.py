"""Recipes: what is read, what is refused, and what a schedule makes of a step."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from executor.optimizers.settings import NAMES, OPTIONS
from executor.training import override
from executor.training.board import Board
from executor.training.method import METHODS, Method, methods
from executor.training.recipe import TABLES, Recipe, of_table, read
from executor.training.run import check
from executor.training.schedule import TAKES, Schedule
from executor.training.stopping import Patience
from executor.training.toml import toml
from executor.training.tune import drawn, rungs
from planner.errors import InputError
from tests.executor.trainings import EXAMPLES

MODEL = {"layers": 2, "hidden": 32, "heads": 2, "ffn": 64}
GOOD = {"model": MODEL, "data": {"kind": "python"}}


def made(**tables):
    """The recipe of the smallest tables and these."""
    return of_table({**GOOD, **tables}, Path("folder/recipe.toml"))


def refused(**tables):
    """What is said of them."""
    with pytest.raises(InputError) as caught:
        made(**tables)
    return str(caught.value)


def test_a_small_recipe_has_defaults():
    """A model and data are enough; what is left out has the documented value."""
    recipe = made()
    assert isinstance(recipe, Recipe)
    assert (recipe.optimizer.name, recipe.run.steps, recipe.parallel.ranks) == ("adamw", 100, 1)
    assert recipe.regularisation.exclude == ("norms", "biases", "embeddings")


def test_all_faults_are_told_at_once():
    """Unknown tables and keys with the nearest name, wrong values and missing keys: one line each, in one go."""
    text = refused(
        data={"seq_len": 0},
        optimizer={"name": "adamv", "learning_rat": 1},
        paralel={},
        model={"layrs": 2},
        run={"steps": "many", "device": "tpu"},
        compression={"prun": {}},
    )
    assert len(text.splitlines()) == 9
    for expected in (
        "recipe.toml: paralel: no such table; did you mean 'parallel'?",
        "model: layrs: no such key; did you mean 'layers'?",
        "data.kind: is missing",
        "data.seq_len is 0: expected a whole number from 2",
        "optimizer.name is 'adamv': expected one of",
        "did you mean 'adam'?",
        "optimizer.learning_rat: no such key; did you mean 'learning_rate'?",
        "run.steps is 'many': expected a whole number from 1",
        "run.device is 'tpu'",
        "compression.prun: expected one of the methods",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"optimizer": {"name": "adamw", "momentum": 0.9}}, "optimizer.momentum: adamw doesn't read this"),
        ({"schedule": {"name": "cosine", "power": 2.0}}, "schedule.power: cosine doesn't read this"),
        ({"schedule": {"warm_up": 100}}, "schedule.warm_up is 100: must be below the 100 steps"),
        ({"schedule": {"name": "wsd", "decay": 101}}, "schedule.decay is 101: must fit"),
        ({"schedule": {"name": "plateau"}}, "schedule.name: waits for evaluations"),
        ({"regularisation": {"patience": 2}}, "regularisation.patience: waits for evaluations"),
        ({"regularisation": {"metric": "accuracy"}}, "regularisation.metric: is read for early stopping alone"),
        ({"evaluation": {"metrics": ["f1"]}}, "evaluation.metrics is 'f1': is of a classification"),
        ({"data": {"kind": "digits", "seq_len": 8}}, "data.seq_len: digits doesn't read this"),
        ({"data": {"kind": "text"}}, "data.path: is missing"),
        ({"data": {"kind": "python", "validation": 0.5, "test": 0.5}}, "leave nothing to train on"),
        ({"data": {"kind": "digits", "test": "file.npz"}}, "digits is built in"),
        ({"data": {"kind": "python", "objective": "classification"}}, "python has no labels"),
        ({"model": {"name": "qwen3-0.6b", "layers": 2}}, "model: has a name and keys of its own (layers)"),
    ],
)
def test_keys_that_contradict_or_do_nothing_are_refused(tables, expected):
    """A key that the chosen kind doesn't read, and values that rule each other out, are faults of the recipe."""
    assert expected in refused(**tables)


def test_paths_start_at_the_recipe():
    """Relative paths are those of the recipe's folder, whatever the working directory."""
    recipe = made(data={"kind": "text", "path": "texts"}, run={"out": "../out"}, model={"name": "model.toml"})
    assert recipe.data.path == Path("folder/texts")
    assert recipe.run.out == Path("folder/../out")
    assert recipe.model.name == "folder/model.toml"


def test_a_plan_is_held_to_the_planners_rules(tmp_path):
    """The axes of a recipe break the same rules as any plan's, told together with what else is missing."""
    path = tmp_path / "recipe.toml"
    path.write_text(toml({**GOOD, "parallel": {"tp": 3, "dp": 2, "micro_batch": 3}}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        check(read(path))
    text = str(caught.value)
    assert "recipe.toml: strategy.heads" in text
    assert "recipe.toml: strategy.batch" in text


@pytest.mark.parametrize("name", TAKES)
def test_schedules_warm_up_and_stay_between_their_ends(name):
    """Every schedule rises linearly to the peak and never leaves [final, 1]."""
    takes = {"final": 0.1, "decay": 30, "every": 20, "factor": 0.5, "patience": 2, "power": 2.0}
    schedule = Schedule(name, warm_up=10, **{key: takes[key] for key in TAKES[name]})
    factors = [schedule.at(step, 100) for step in range(1, 101)]
    assert factors[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert all(0.0 <= factor <= 1.0 for factor in factors)
    ends = {"constant": 1.0, "plateau": 1.0, "step": 0.5**4}
    assert factors[-1] == pytest.approx(ends.get(name, 0.1))
    assert factors == sorted(factors[:10]) + sorted(factors[10:], reverse=True)


def test_wsd_is_stable_until_it_decays():
    """Warm-up, a plateau at the peak, and a linear fall over the last steps."""
    schedule = Schedule("wsd", warm_up=10, decay=20)
    assert {schedule.at(step, 100) for step in range(10, 81)} == {1.0}
    assert schedule.at(90, 100) == pytest.approx(0.5)


def test_patience_waits_and_knows_the_best():
    """A better value starts the count anew, a value that is no number never is better; accuracy rises, loss falls."""
    falling, rising = Patience("loss", 2), Patience("accuracy", 2)
    assert [falling.better(step, value) for step, value in enumerate((3.0, 2.0, float("nan"), 2.5), 1)] == [
        True,
        True,
        False,
        False,
    ]
    assert falling.over
    assert (falling.value, falling.step) == (2.0, 2)
    assert rising.better(1, 0.5)
    assert rising.better(2, 0.6)
    other = Patience("accuracy", 2)
    other.resume(json.loads(json.dumps(rising.state())))
    assert other == rising


def test_a_table_becomes_toml_and_comes_back():
    """What is written for a best recipe reads as the same table, strange keys and empty tables included."""
    table = {
        "model": {"name": 'a "quoted" name', "sizes": [1, 2.5], "flag": True},
        "empty": {},
        "deep": {"one": {"two": {"a key": -1e-9}}},
        "top": 3,
    }
    assert tomllib.loads(toml(table)) == table


def test_values_from_outside_take_the_place_of_keys():
    """--set reads TOML and else text; --ranks leaves the rest to dp, and must fit the other axes."""
    parsed = override.parsed(["run.steps=5", "data.kind=digits", "a.b.c=[1, 2]"])
    assert parsed == {"run.steps": 5, "data.kind": "digits", "a.b.c": [1, 2]}
    table = {"run": {"steps": 1}}
    assert override.changed(table, parsed)["run"] == {"steps": 5}
    assert table == {"run": {"steps": 1}}
    assert override.on_ranks({"parallel": {"tp": 2}}, 6)["parallel"] == {"tp": 2, "dp": 3}
    with pytest.raises(InputError, match="must be a multiple of tp"):
        override.on_ranks({"parallel": {"tp": 2}}, 5)
    with pytest.raises(InputError, match="expected TABLE"):
        override.parsed(["steps=5"])


def test_recipes_need_no_torch():
    """Reading a recipe, its data and its plan, and the command itself load no torch; the ranks do."""
    pytest.importorskip("sklearn")
    code = (
        "import sys\n"
        "from planner.cli import main\n"
        f"assert main(['train', {str(EXAMPLES / 'digits-resnet.toml')!r}, '--dry-run', '--quiet']) == 0\n"
        "import executor.corpus\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=EXAMPLES.parent)


class Writer:
    """Stands for TensorBoard's writer."""

    written: ClassVar[list] = []

    def __init__(self, folder):
        """Note the folder."""
        self.written.append(folder)

    def add_scalar(self, name, value, step):
        """Note a scalar."""
        self.written.append((name, value, step))

    def close(self):
        """Note the end."""
        self.written.append("closed")


def test_scalars_go_to_tensorboard_where_it_is(monkeypatch, tmp_path):
    """With the package each scalar is written as group/name; without it, or without a folder, nothing happens."""
    Board(tmp_path).close()
    monkeypatch.setattr("executor.training.board.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    board = Board(tmp_path)
    board.scalars("train", 3, {"step": 3, "loss": 1.5})
    board.close()
    Board(None).scalars("train", 3, {"loss": 1.5})
    assert Writer.written == [str(tmp_path / "tensorboard"), ("train/loss", 1.5, 3), "closed"]


class Counting(Method):
    """A method that does nothing."""


def counting(table, where):
    """The factory of `Counting`."""
    return Counting()


def test_methods_are_found_by_the_name_of_their_table(monkeypatch):
    """A table below [compression] is handed to the factory of its name; what a method leaves out does nothing."""
    monkeypatch.setitem(METHODS, "counting", f"{__name__}:counting")
    monkeypatch.setattr("executor.training.method.factory", lambda name: counting)
    (found,) = methods({"counting": {}}, "here")
    assert isinstance(found, Counting)
    assert found.wrap("objective") == "objective"
    assert (found.state(), found.finish(), found.before_step(1), found.after_step(1)) == ({}, {}, None, None)


def test_a_search_draws_inside_its_ranges():
    """Halton points, evenly in the logarithm; batches out of the list; rungs grow threefold up to the given steps."""
    search = {"trials": 9, "learning_rate": [1e-4, 1e-1], "batch": [8, 16]}
    values = drawn(made(search=search))
    assert len(values) == 9
    assert all(1e-4 <= each["learning_rate"] <= 1e-1 for each in values)
    assert {each["batch"] for each in values} == {8, 16}
    assert sum(each["learning_rate"] < 10**-2.5 for each in values) in (4, 5)
    assert rungs(9, 90) == [10, 30, 90]
    assert rungs(2, 90) == [90]
    with pytest.raises(InputError, match="names nothing to search"):
        drawn(made())
    with pytest.raises(InputError, match="the first below the second"):
        drawn(made(search={"learning_rate": [1e-1, 1e-2]}))


def test_names_of_optimizers_are_known():
    """Each optimizer states what it reads, and every table of a recipe has keys."""
    assert set(NAMES) >= {"adam", "adamw", "adam-bf16", "adam-8bit", "sgd", "sgd-plain", "adafactor", "muon", "lion"}
    assert all(isinstance(takes, frozenset) for takes in OPTIONS.values())
    assert "run" in TABLES
