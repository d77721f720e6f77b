"""From a recipe to a deployed model: compression in the loop, `plan deploy`, `plan infer`, the table of both."""

import json
import shutil
import tomllib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

from executor.data import load as load_data  # noqa: E402
from executor.deploy import deploy, trained  # noqa: E402
from executor.exported import load  # noqa: E402
from executor.judge import scores  # noqa: E402
from executor.methods.table import compared, sheet  # noqa: E402
from executor.model_file import text_of  # noqa: E402
from executor.training.recipe import of_table  # noqa: E402
from executor.training.run import Options, train  # noqa: E402
from planner import catalog  # noqa: E402
from planner.cli import main  # noqa: E402
from planner.errors import RunFailed  # noqa: E402
from planner.families.table import model_of_table  # noqa: E402

RESNET = {
    "architecture": "resnet", "image": 8, "channels": 1, "widths": [8, 16], "depths": [1, 1], "classes": 10, "stem": 8,
    "stem_kernel": 3, "stem_stride": 1, "stem_pool": False,
}  # fmt: skip
MIXTURE = {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "experts": 6, "topk": 2, "moe_ffn": 16}


def digits(out, steps=40, **more):
    """A recipe of a small residual network on digits."""
    table = {
        "model": RESNET,
        "data": {"kind": "digits", "test": 0.2},
        "optimizer": {"learning_rate": 1e-2},
        "batch": {"size": 64},
        "run": {"steps": steps, "out": str(out)},
        "parallel": {"micro_batch": 64},
    }
    return {**table, **{name: {**table.get(name, {}), **change} for name, change in more.items()}}


def run(pool, table):
    """Train; what training.json tells."""
    return train(Options(of_table(table, table_path(table))), pool).told


def table_path(table):
    """Where the recipe would lie."""
    from pathlib import Path  # noqa: PLC0415

    return Path(table["run"]["out"]) / "recipe.toml"


@pytest.fixture(scope="module")
def room(tmp_path_factory, pool):
    """Two finished trainings: a network on digits, and a mixture on text."""
    root = tmp_path_factory.mktemp("runs")
    run(pool, digits(root / "digits"))
    text = root / "text"
    text.mkdir()
    for number in range(24):
        (text / f"{number}.txt").write_text(
            f"the {number} quick brown foxes jump over lazy dogs. " * 40, encoding="utf-8"
        )
    table = {
        "model": MIXTURE,
        "data": {"kind": "text", "path": str(text), "seq_len": 16, "test": 0.2},
        "optimizer": {"learning_rate": 1e-2},
        "batch": {"size": 8},
        "run": {"steps": 30, "out": str(root / "mixture")},
        "parallel": {"micro_batch": 8},
    }
    run(pool, table)
    return root


def test_a_training_is_deployed_as_it_was_judged(room):
    """The exported network is as good on the test data as training.json says, and names its data and classes."""
    manifest = deploy(room / "digits", room / "digits-fp32")
    told = json.loads((room / "digits" / "training.json").read_text(encoding="utf-8"))
    assert manifest["metrics"]["accuracy"] == pytest.approx(told["final"]["test"]["accuracy"])
    assert manifest["metrics"]["loss"] == pytest.approx(told["final"]["test"]["loss"], rel=1e-4)
    assert manifest["data"] == told["data"]["sha256"]
    assert manifest["classes"] == [str(digit) for digit in range(10)]
    assert manifest["program"] == "written"
    assert manifest["history"]["ranks"] == 1


def test_images_are_classified(room, tmp_path, capsys):
    """`plan infer --file` tells class and probability of whole-number and of scaled images alike."""
    deploy(room / "digits", tmp_path / "model", "int8")
    data = trained(room / "digits").data
    images, labels = data.test.take(np.arange(30))
    np.save(tmp_path / "scaled.npy", images)
    np.save(tmp_path / "whole.npy", (images * 16).astype(np.uint8))
    answers = []
    for name in ("scaled", "whole"):
        assert main(["infer", str(tmp_path / "model"), "--file", str(tmp_path / f"{name}.npy"), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["predictions"])
    assert answers[0] == answers[1]
    assert all(0.1 <= each["probability"] <= 1.0 for each in answers[0])
    right = sum(each["class"] == str(label) for each, label in zip(answers[0], labels, strict=True))
    assert right >= 15
    np.save(tmp_path / "wide.npy", np.zeros((2, 1, 9, 8)))
    assert main(["infer", str(tmp_path / "model"), "--file", str(tmp_path / "wide.npy")]) == 3
    assert "expected numbers of the shape [samples, 1, 8, 8]" in capsys.readouterr().err
    assert main(["infer", str(tmp_path / "model"), "--text", "seven"]) == 3
    assert "classifies images" in capsys.readouterr().err
    assert main(["infer", str(tmp_path / "model"), "--file", str(tmp_path / "whole.npy")]) == 0
    assert "10 more with --json" in capsys.readouterr().out


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_recipe_prunes_and_goes_on_pruned(pool, room, tmp_path, ranks):
    """Half of a trained network's weights are cut as 2:4 on one rank and on two; a resumed training keeps the masks."""
    recipe = {
        "compression": {"prune": {"pattern": "2:4", "start": 0}},
        "optimizer": {"learning_rate": 1e-3},
        "parallel": {"micro_batch": 32, "dp": ranks, "zero": 2 if ranks > 1 else 0},
    }
    start = {"start_from": str(room / "digits"), "checkpoint_every": 5}
    first = run(pool, digits(tmp_path / "out", 10, run=start | {"steps": 10, "out": str(tmp_path / "out")}, **recipe))
    fact = first["methods"]["prune"]
    assert fact["zeros"] * 2 == fact["weights"] > 0
    manifest = deploy(tmp_path / "out", tmp_path / "model")
    assert manifest["form"] == "2:4"
    shutil.rmtree(tmp_path / "out" / "final")
    table = digits(tmp_path / "out", 15, run=start | {"steps": 15, "out": str(tmp_path / "out")}, **recipe)
    told = train(Options(of_table(table, table_path(table)), resume=True), pool).told
    assert told["methods"]["prune"] == fact
    before, after = load(tmp_path / "model").module, trained(tmp_path / "out").state
    for name, value in before.named_parameters():
        if value.dim() == 4 and value.size(1) % 4 == 0 and not name.startswith("embedding"):
            assert torch.equal(value != 0, after[name] != 0), name


def test_a_recipe_distils_and_quantizes(pool, room, tmp_path):
    """A teacher and int4 weights in one training; the export takes the form that was trained for."""
    deploy(room / "digits", tmp_path / "teacher")
    how = {
        "distill": {"teacher": str(tmp_path / "teacher"), "temperature": 2.0, "weight": 0.5, "hidden": 0.1},
        "quantize": {"form": "int4", "group": 16, "activations": True},
    }
    told = run(pool, digits(tmp_path / "out", model={"widths": [4, 8], "stem": 4}, compression=how))
    assert told["methods"]["distill"]["teacher"]["parameters"] > told["model"]["parameters"]
    assert told["methods"]["quantize"]["matrices"] == 5
    manifest = deploy(tmp_path / "out", tmp_path / "student")
    assert (manifest["form"], manifest["group"]) == ("int4", 16)
    assert not [name for name in manifest["weights"] if "projection" in name]
    assert told["curve"][-1]["loss"] < told["curve"][0]["loss"]


def test_a_teacher_of_other_classes_is_refused(pool, room, tmp_path):
    """The sentence names what teacher and student tell apart."""
    deploy(room / "mixture", tmp_path / "teacher")
    table = digits(tmp_path / "out", compression={"distill": {"teacher": str(tmp_path / "teacher")}})
    with pytest.raises(RunFailed, match="tells 256 tokens or classes apart, the student 10"):
        run(pool, table)


def test_text_is_classified_as_it_was_judged(pool, tmp_path, capsys):
    """A small BERT over bytes: exported, as good as in training.json, and each line of a file gets a class."""
    for label, word in (("fox", "quick brown foxes jump "), ("sea", "waves and salt and wind ")):
        (tmp_path / "text" / label).mkdir(parents=True)
        for number in range(40):
            (tmp_path / "text" / label / f"{number}.txt").write_text(
                f"{number} {word * (1 + number % 3)}", encoding="utf-8"
            )
    model = {
        "layers": 1, "hidden": 16, "heads": 2, "ffn": 32, "gated": False, "norm": "layer", "norm_places": "add_norm",
        "positions": 64, "token_types": 2, "embedding_norm": True, "causal": False, "rotary": False,
        "predicts": "classes", "pooled": True,
    }  # fmt: skip
    table = {
        "model": model,
        "data": {"kind": "labelled-text", "path": str(tmp_path / "text"), "seq_len": 64, "test": 0.3},
        "optimizer": {"learning_rate": 1e-2},
        "batch": {"size": 8},
        "run": {"steps": 30, "out": str(tmp_path / "out")},
        "parallel": {"micro_batch": 8},
    }
    told = run(pool, table)
    manifest = deploy(tmp_path / "out", tmp_path / "model")
    assert manifest["metrics"]["loss"] == pytest.approx(told["final"]["test"]["loss"], rel=1e-4)
    assert manifest["metrics"]["accuracy"] == pytest.approx(told["final"]["test"]["accuracy"])
    (tmp_path / "lines.txt").write_text("7 quick brown foxes jump \n\n8 waves and salt and wind \n", encoding="utf-8")
    assert main(["infer", str(tmp_path / "model"), "--file", str(tmp_path / "lines.txt"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["class"] for each in found["predictions"]] == ["fox", "sea"]


def test_a_catalogue_model_is_described_by_its_entry():
    """Networks and encoders of the catalogue have no other text than their own file, with their name in it."""
    for name in ("resnet-18", "bert-small", "vit-b-16", "kimi-k2"):
        made = catalog.load(name)
        table = tomllib.loads(text_of(made, {}, name))
        assert model_of_table(table, name, "other") == made


@pytest.mark.parametrize("merge", [False, True])
def test_experts_are_taken_away(room, tmp_path, merge):
    """Four of six experts stay: fewer bytes, a perplexity that is told, a folder that predicts."""
    before = deploy(room / "mixture", tmp_path / "before")
    after = deploy(room / "mixture", tmp_path / "after", keep=4, merge=merge)
    assert after["stored_bytes"] < before["stored_bytes"]
    assert after["metrics"]["perplexity"] < 256
    assert after["maps"] == (["layers.0.ffn", "layers.1.ffn"] if merge else [])
    assert main(["infer", str(tmp_path / "after"), "--text", "the quick", "--tokens", "4", "--quiet"]) == 0


def test_models_stand_side_by_side(room, tmp_path, capsys):
    """The table has each model's accuracy, bytes and latency, as JSON, for people, and as a page."""
    names = {"as-trained": "fp32", "eight": "int8"}
    for name, form in names.items():
        deploy(room / "digits", tmp_path / name, form)
    folders = [str(tmp_path / name) for name in names]
    command = ["deploy", *folders, "--compare", "--data", str(room / "digits"), "--report", str(tmp_path / "page.html")]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["rows"]] == list(names)
    for row in found["rows"]:
        deployed = load(tmp_path / row["name"])
        assert row["scores"] == pytest.approx(scores(deployed, trained(room / "digits").data.test))
        assert row["stored_bytes"] == deployed.manifest["stored_bytes"] < row["disk_bytes"]
        assert row["latency"]["seconds"] > 0.0
    assert found["rows"][1]["stored_bytes"] < found["rows"][0]["stored_bytes"]
    assert "before_after" in (tmp_path / "page.html").read_text(encoding="utf-8")
    table = compared({name: tmp_path / name for name in names}, trained(room / "digits").data.test, 32, 3)
    assert "median of 3 batches of 32" in sheet(table).notes[0]


def test_what_is_no_training_is_refused(tmp_path, capsys, room):
    """No folder, options that don't go together, a form that the weights don't have: one sentence each."""
    assert main(["deploy", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 3
    assert "has no trained weights" in capsys.readouterr().err
    assert main(["deploy", str(tmp_path), "--merge"]) == 3
    said = capsys.readouterr().err
    assert "--out: names the folder" in said
    assert "--merge: needs --experts" in said
    assert main(["deploy", str(tmp_path), "--compare"]) == 3
    assert "--compare needs the run" in capsys.readouterr().err
    assert main(["deploy", str(room / "digits"), "--out", str(tmp_path / "out"), "--weights", "2:4"]) == 3
    assert "not pruned 2:4" in capsys.readouterr().err
    assert main(["deploy", str(room / "digits"), "--out", str(tmp_path / "out"), "--experts", "4"]) == 3
    assert "experts" in capsys.readouterr().err


def test_what_is_judged_is_all_of_the_split(room):
    """Loss and accuracy over all samples are those of one big batch."""
    found = trained(room / "digits")
    deploy(room / "digits", room / "judged")
    deployed = load(room / "judged")
    data = load_data(found.recipe.data, found.recipe.run.seed)
    images, labels = (torch.from_numpy(each) for each in data.test.take(np.arange(len(data.test))))
    with torch.no_grad():
        logits = deployed.module(images)
    told = scores(deployed, data.test)
    assert told["samples"] == len(labels)
    assert told["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert told["accuracy"] == pytest.approx(float((logits.argmax(-1) == labels).float().mean()))
