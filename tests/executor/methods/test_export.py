"""Exported models: what goes in comes out, what is broken is refused in one sentence, and `plan infer` predicts."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from executor import infer  # noqa: E402
from executor.export import Facts, digest, export, gathered  # noqa: E402
from executor.exported import load  # noqa: E402
from executor.methods import experts  # noqa: E402
from executor.methods.codecs import stored_bytes  # noqa: E402
from executor.methods.prune import Pruner  # noqa: E402
from executor.methods.settings import Prune  # noqa: E402
from executor.methods.targets import chosen, pieces  # noqa: E402
from executor.model import build  # noqa: E402
from executor.model_file import model_toml  # noqa: E402
from executor.trainer import Trainer  # noqa: E402
from planner.catalog import load as load_model  # noqa: E402
from planner.cli import main  # noqa: E402
from planner.errors import InputError  # noqa: E402
from planner.shape import Shape  # noqa: E402
from planner.shape import build as shape_model  # noqa: E402
from tests.executor.grid import SHAPES, WORKLOAD, Row, model  # noqa: E402

SMALL = {"family": "test", "layers": 2, "hidden": 32, "vocab": 256, "heads": 4, "kv_heads": 2, "ffn": 64}
FACTS = Facts("language-model", "bytes", (32,), data="abc", metrics={"perplexity": 7.5})
NOISE = {"bf16": 0.02, "fp8": 0.1, "int8": 0.03, "int8-dynamic": 0.05, "int4": 0.3}  # of the logits' norm
TEXT = b"import os\nfor name in os.listdir(path):\n    print(name)\n"


def small(**more):
    """A language model over bytes and its parameters."""
    made = shape_model(Shape("small", **SMALL, **more))
    return made, dict(build(made, seed=4).state_dict())


def written(folder, form="fp32", facts=FACTS, **more):
    """An exported small model."""
    made, state = small()
    if form == "2:4":
        module = build(made, seed=4)
        Pruner(chosen(pieces(module)), Prune("2:4", start=0)).after_step(0)
        state = dict(module.state_dict())
    return made, state, export(folder, model_toml(made), state, facts, form=form, **more)


@pytest.mark.parametrize("name", SHAPES)
def test_a_model_file_describes_the_same_model(name, tmp_path):
    """Every kind of layer is written so that the catalogue reads it back."""
    path = tmp_path / "model.toml"
    path.write_text(model_toml(model(name)), encoding="utf-8")
    assert load_model(path) == model(name)


@pytest.mark.parametrize("form", ["fp32", "bf16", "fp8", "int8", "int4", "int8-dynamic", "2:4", "sparse"])
def test_what_is_exported_predicts_as_before(form, tmp_path):
    """Exact forms give the same logits, others near ones; the bytes on the disk are the stored ones and a header."""
    made, state, manifest = written(tmp_path / form, form)
    deployed = load(tmp_path / form)
    module = build(made)
    module.load_state_dict(state)
    ids = torch.tensor([list(TEXT[:32])])
    with torch.no_grad():
        before, after = module(ids), deployed.module(ids)
    if form in ("fp32", "2:4", "sparse"):
        assert torch.equal(after, before)
    else:
        assert float((after - before).norm() / before.norm()) < NOISE[form]
        assert not torch.equal(after, before)
    assert deployed.facts == FACTS
    size = (tmp_path / form / "model.safetensors").stat().st_size
    assert 0 < size - manifest["stored_bytes"] < 16384
    assert manifest["parameters"] == made.total_parameters()


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_codes_multiply_as_widened_weights_do(form, tmp_path):
    """Matrices in codes and the same matrices widened give the same."""
    written(tmp_path, form)
    ids = torch.tensor([list(TEXT[:32])])
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path).module(ids), load(tmp_path, codes=False).module(ids))


def test_forms_are_smaller_in_order(tmp_path):
    """Bytes fall from fp32 to bf16, 2:4, int8 and int4."""
    sizes = [written(tmp_path / form, form)[2]["stored_bytes"] for form in ("fp32", "2:4", "bf16", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 5


def gathered_on(row):
    """Whole parameters and buffers of a trainer, on rank 0."""
    return gathered(Trainer(model(row.shape), row.degrees, row.chosen, WORKLOAD, options=row.options, seed=3))


def test_any_layout_is_gathered_whole(pool, tmp_path):
    """A model that was trained in pieces exports as the whole one, buffers of its routers too."""
    row = Row("", "latent", 4, {"pp": 2, "ep": 2, "micro_batch": 2}, {"zero": 1})
    found = pool.run(gathered_on, row, ranks=4)[0]
    wanted = build(model("latent"), seed=3)
    assert found.keys() == wanted.state_dict().keys()
    export(tmp_path, model_toml(model("latent")), found, FACTS)
    for name, value in load(tmp_path).module.state_dict().items():
        assert torch.equal(value, wanted.state_dict()[name]), name


def test_a_tied_matrix_is_stored_once(tmp_path):
    """A model whose head is its embedding has one matrix in the file, and predicts as before."""
    made, state = small(tied=True)
    manifest = export(tmp_path, model_toml(made), state, FACTS)
    assert manifest["stored_bytes"] == 4 * made.total_parameters()
    ids = torch.tensor([list(TEXT[:32])])
    module = build(made)
    module.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(load(tmp_path).module(ids), module(ids))


def test_merged_experts_are_exported_with_their_table(tmp_path):
    """The folder has the whole router, fewer experts and the table between them, and predicts as the merged model."""
    made, state = small(experts=8, topk=2, moe_ffn=32)
    batch = torch.tensor([list(TEXT[:32])])
    loads = experts.routed(experts.built(made, state), [batch])
    _, merged, maps = experts.merge(made, state, loads, 5)
    export(tmp_path, model_toml(made), merged, FACTS, form="int8", maps=maps)
    deployed = load(tmp_path, codes=False)
    assert deployed.module.get_submodule("layers.0.ffn.experts").number == 5
    with torch.no_grad():
        before, after = experts.built(made, merged, maps)(batch), deployed.module(batch)
    assert float((after - before).norm() / before.norm()) < 0.05


def test_a_traced_program_gives_the_same(tmp_path):
    """Where torch can trace the model, the saved program runs on another batch; where not, the manifest says why."""
    made, state = small()
    module = build(made)
    module.load_state_dict(state)
    ids = torch.tensor([list(TEXT[:32])] * 2)
    manifest = export(tmp_path, model_toml(made), state, FACTS, program=(module, ids))
    if manifest["program"] != "written":
        assert manifest["program"].startswith("not written: ")
        assert "model.pt2" not in manifest["files"]
        return
    program = torch.export.load(tmp_path / "model.pt2").module()
    three = torch.tensor([list(TEXT[i : i + 32]) for i in range(3)])
    torch.testing.assert_close(program(three), module(three), rtol=1e-4, atol=1e-5)


BROKEN = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    "no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "isn't valid JSON"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    "changed weights": (lambda folder: flip(folder / "model.safetensors"), "its SHA-256 differs"),
    "changed model": (lambda folder: append(folder / "model.toml", "\nrogue = 1\n"), "its SHA-256 differs"),
    "wrong version": (lambda folder: edit(folder, schema_version=9), "schema_version is 9: expected 1"),
    "wrong form": (lambda folder: edit(folder, form="int3"), "form is 'int3'"),
    "no weights told": (lambda folder: edit(folder, weights=[]), "weights is []: expected a dict"),
}


def flip(path):
    """Change the last byte of a file."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def append(path, text):
    """Text at the end of a file."""
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def edit(folder, **changes):
    """Change the manifest."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_is_refused(fault, tmp_path, capsys):
    """One clear sentence, exit code 3, no traceback."""
    written(tmp_path)
    breaks, sentence = BROKEN[fault]
    breaks(tmp_path)
    assert main(["infer", str(tmp_path), "--text", "x"]) == 3
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_a_model_of_another_shape_is_refused(tmp_path):
    """Tensors that aren't the model's are all named at once, though every file is as it was written."""
    made, state, _ = written(tmp_path / "a")
    del state["head.norm.weight"]
    state["layers.0.attention.q.weight"] = torch.zeros(3, 3)
    state["rogue"] = torch.zeros(2)
    export(tmp_path / "b", model_toml(made), state, FACTS)
    with pytest.raises(InputError) as caught:
        load(tmp_path / "b")
    text = str(caught.value)
    assert "head.norm.weight is missing" in text
    assert "the model wants the shape [32, 32]" in text
    assert "rogue: the model has no such tensor" in text


def test_nothing_is_exported_in_an_unknown_form(tmp_path):
    """An unknown form, and a dense model as 2:4, are refused."""
    with pytest.raises(InputError, match="expected one of fp32"):
        written(tmp_path, "int3")
    made, state = small()
    with pytest.raises(InputError, match="more than two of four"):
        export(tmp_path, model_toml(made), state, FACTS, form="2:4")


def test_a_text_is_continued(tmp_path, capsys):
    """Greedy bytes are those of the module's arg max; perplexity is that of its loss; JSON has the latency."""
    made, state, _ = written(tmp_path)
    assert main(["infer", str(tmp_path), "--text", "import os", "--tokens", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    module = build(made)
    module.load_state_dict(state)
    ids = list(b"import os")
    with torch.no_grad():
        logits = module(torch.tensor([ids]))[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]))
        for _ in range(5):
            ids.append(int(module(torch.tensor([ids[-32:]]))[0, -1].argmax()))
    assert found["continuation"] == bytes(ids[9:]).decode("utf-8", "replace")
    assert found["perplexity"] == pytest.approx(float(loss.exp()), rel=1e-5)
    assert found["latency"]["median_s"] > 0.0
    assert found["latency"]["clock"] == "wall"


def test_drawing_follows_the_seed(tmp_path):
    """The same seed draws the same bytes, another one others; long texts slide through the window."""
    written(tmp_path)
    deployed = load(tmp_path)
    first, again, other = (infer.continuation(deployed, TEXT, 12, 1.0, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 12


def test_a_file_is_read_and_a_table_shown(tmp_path, capsys):
    """--file takes bytes; without --json people get sentences."""
    written(tmp_path / "model")
    (tmp_path / "a.txt").write_bytes(TEXT)
    assert main(["infer", str(tmp_path / "model"), "--file", str(tmp_path / "a.txt"), "--tokens", "3"]) == 0
    shown = capsys.readouterr().out
    assert "Perplexity a byte of the 56 bytes given" in shown
    assert main(["infer", str(tmp_path / "model"), "--file", str(tmp_path / "no.txt")]) == 3
    assert main(["infer", str(tmp_path / "model")]) == 2
    assert main(["infer", str(tmp_path / "model"), "--text", ""]) == 3


def test_a_copy_elsewhere_is_the_same_model(tmp_path):
    """A folder may be moved: nothing in it names its place."""
    written(tmp_path / "a", "int8")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert load(tmp_path / "b").manifest == load(tmp_path / "a").manifest
    assert digest(tmp_path / "a" / "manifest.json") == digest(tmp_path / "b" / "manifest.json")
    assert stored_bytes(load(tmp_path / "b").module.state_dict()) < stored_bytes(
        load(tmp_path / "b", codes=False).module.state_dict()
    )
    assert np.isfinite(load(tmp_path / "b").manifest["metrics"]["perplexity"])
