"""Training methods for real, on real data: `make bench-training` prints what each is worth.

Digits are scikit-learn's (1,797 images, 345 of them for the test), text is Python's standard library. All run as
recipes of `plan train` and is exported, so what is judged is what would be deployed. Figures to read beside the aims.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")

from executor.deploy import deploy, trained  # noqa: E402
from executor.export import Facts, export  # noqa: E402
from executor.exported import load  # noqa: E402
from executor.measure.clock import time_call  # noqa: E402
from executor.measure.quiet import others  # noqa: E402
from executor.methods.table import compared, note, sheet  # noqa: E402
from executor.model import build  # noqa: E402
from executor.model_file import model_toml  # noqa: E402
from executor.ranks import Ranks  # noqa: E402
from executor.training.recipe import of_table  # noqa: E402
from executor.training.run import Options, train  # noqa: E402
from planner.commands.output import show  # noqa: E402
from planner.shape import Shape  # noqa: E402
from planner.shape import build as shape_model  # noqa: E402
from reports.cli import write_compression  # noqa: E402

pytestmark = pytest.mark.timeout(3600)
OUT = Path("out/bench")
SEEDS = range(5)
POINT = 0.01
FEW = {"validation": 0.7}  # 173 labelled digits are left to train on


@pytest.fixture(scope="module")
def pool():
    """Ranks for all trainings."""
    with Ranks(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Where the trainings and the exported models are."""
    return tmp_path_factory.mktemp("training")


def say(text=""):
    """A line of the report."""
    print(text, flush=True)  # noqa: T201  the figure is the point


def digits(widths=(32, 64), steps=300, **more):
    """A recipe for a residual network on digits; `more` changes tables."""
    table = {
        "model": {
            "architecture": "resnet", "image": 8, "channels": 1, "widths": list(widths), "depths": [1, 1],
            "classes": 10, "stem": widths[0], "stem_kernel": 3, "stem_stride": 1, "stem_pool": False,
        },
        "data": {"kind": "digits", "test": 0.2, "validation": 0.1},
        "optimizer": {"learning_rate": 3e-3},
        "schedule": {"name": "cosine", "warm_up": 20},
        "regularisation": {"weight_decay": 0.05},
        "batch": {"size": 64},
        "run": {"steps": steps},
        "parallel": {"micro_batch": 64},
    }  # fmt: skip
    return {**table, **{name: {**table.get(name, {}), **change} for name, change in more.items()}}


def run(pool, table, out):
    """Train; what training.json tells."""
    table = {**table, "run": {**table["run"], "out": str(out)}}
    return train(Options(of_table(table, Path("bench.toml"))), pool).told


def right(told):
    """Accuracy on the test data."""
    return told["final"]["test"]["accuracy"]


def spread(values):
    """Mean and standard deviation in percent."""
    return f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f} %"


@pytest.fixture(scope="module")
def dense(pool, room):
    """The residual network as trained, and exported."""
    told = run(pool, digits(), room / "dense")
    deploy(room / "dense", room / "dense-fp32")
    return right(told)


def test_digits(pool, room, dense):
    """The residual network tells at least 97 % of unseen digits, over five seeds."""
    found = [
        dense,
        *(right(run(pool, digits(run={"steps": 300, "seed": seed}), room / f"s{seed}")) for seed in SEEDS[1:]),
    ]
    say(f"\ndigits ResNet, 5 seeds: {spread(found)} of 345 unseen digits (aim 97 %)")
    assert statistics.mean(found) >= 0.97


def test_two_ranks(pool, room, dense):
    """Data parallelism on two ranks gives the network of one process."""
    told = run(pool, digits(parallel={"micro_batch": 32, "dp": 2}), room / "ranks2")
    deploy(room / "ranks2", room / "ranks2-fp32")
    alone = json.loads((room / "dense" / "training.json").read_text(encoding="utf-8"))
    apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(told["curve"][:100], alone["curve"][:100], strict=True))
    say(f"two ranks: {100 * right(told):.2f} %, one {100 * dense:.2f} %; 100 losses apart by at most {apart:.1e}")
    assert abs(right(told) - dense) <= POINT


PRUNED = {
    "pruned-2to4": {"pattern": "2:4", "start": 0},
    "pruned-80": {"pattern": "unstructured", "sparsity": 0.8, "start": 1, "stop": 100, "every": 10},
}


@pytest.mark.parametrize("name", PRUNED)
def test_pruned(pool, room, dense, name):
    """Half of the weights gone as 2:4 and fine-tuned: within one point; 80 % anywhere, to be read."""
    tuned = digits(
        optimizer={"learning_rate": 1e-3}, run={"steps": 150, "start_from": str(room / "dense")},
        compression={"prune": PRUNED[name]},
    )  # fmt: skip
    told = run(pool, tuned, room / f"{name}-run")
    manifest = deploy(room / f"{name}-run", room / name)
    fact = told["methods"]["prune"]
    zeros = f"{fact['zeros']:,} of {fact['weights']:,} weights zero, stored as {manifest['form']}"
    say(f"{name}: {100 * manifest['metrics']['accuracy']:.2f} % against {100 * dense:.2f} %; {zeros}")
    if name == "pruned-2to4":
        assert fact["zeros"] * 2 == fact["weights"]
        assert manifest["metrics"]["accuracy"] >= dense - POINT


@pytest.mark.parametrize("form", ["int8", "int8-dynamic", "fp8", "int4"])
def test_quantized(room, dense, form):
    """Rounded after training: int8 within one point, with inputs in int8 too."""
    manifest = deploy(room / "dense", room / form, form)
    say(f"{form}: {100 * manifest['metrics']['accuracy']:.2f} % against {100 * dense:.2f} %")
    if form.startswith("int8"):
        assert manifest["metrics"]["accuracy"] >= dense - POINT


@pytest.mark.parametrize("form", ["int4", "fp8"])
def test_trained_for(pool, room, dense, form):
    """Fine-tuned for int4 weights, and with fp8 products emulated."""
    tuned = digits(
        optimizer={"learning_rate": 3e-4}, run={"steps": 150, "start_from": str(room / "dense")},
        compression={"quantize": {"form": form, "activations": True}},
    )  # fmt: skip
    run(pool, tuned, room / f"{form}-run")
    manifest = deploy(room / f"{form}-run", room / f"{form}-aware")
    say(f"{form}, trained for it: {100 * manifest['metrics']['accuracy']:.2f} % against {100 * dense:.2f} %")
    assert manifest["form"] == form


def test_distilled(pool, room, dense):
    """With few labels a small student learns more from the teacher's probabilities; five seeds of each."""
    teacher = {"distill": {"teacher": str(room / "dense-fp32"), "temperature": 4.0, "weight": 0.9}}
    for name, data in (("173 labels", FEW), ("all labels", {})):
        found = {"alone": [], "distilled": []}
        for seed in SEEDS:
            for key, compression in (("alone", {}), ("distilled", teacher)):
                how = {"data": data, "run": {"steps": 400, "seed": seed}, "compression": compression}
                out = room / f"student-{key}-{len(data)}-{seed}"
                found[key].append(right(run(pool, digits((8, 16), **how), out)))
        told = ", ".join(f"{key} {spread(values)}" for key, values in found.items())
        say(f"student of 6 % of the teacher's weights, 5 seeds, {name}: {told}")
        if data:
            assert statistics.mean(found["distilled"]) > statistics.mean(found["alone"])
    for key in ("alone", "distilled"):
        deploy(room / f"student-{key}-1-0", room / f"student-{key}")


def test_early_stopping(pool, room):
    """Training stops once the validation loss no longer falls, and the weights go back to the best."""
    table = digits(
        (16, 32), 600, data=FEW, optimizer={"learning_rate": 1e-2}, schedule={"name": "constant"},
        regularisation={"weight_decay": 0.0, "patience": 5}, evaluation={"every": 10, "metrics": ["loss", "accuracy"]},
    )  # fmt: skip
    told = run(pool, table, room / "early")
    losses = [each["loss"] for each in told["evaluations"]]
    best, last = min(losses), told["final"]["validation"]["loss"]
    at = told["evaluations"][losses.index(best)]["step"]
    stop = f"stopped after step {told['evaluations'][-1]['step']} of 600 at validation loss {losses[-1]:.4f}"
    say(f"early stopping: {stop}, went back to step {at} with {last:.4f} (its best was {best:.4f})")
    assert told["stopped_early"]
    assert last == pytest.approx(best, rel=1e-5)
    assert losses[-1] > best


def text(seed, steps=400, **own):
    """A recipe for a language model over bytes of Python."""
    return {
        "model": {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, **own},
        "data": {"kind": "python", "seq_len": 64},
        "optimizer": {"learning_rate": 3e-3},
        "schedule": {"name": "cosine", "warm_up": 40},
        "batch": {"size": 16},
        "evaluation": {"metrics": ["loss", "perplexity"]},
        "run": {"steps": steps, "seed": seed},
        "parallel": {"micro_batch": 16},
    }


def test_mixture(pool, room):
    """A mixture of 8 experts, 2 a token, beside a dense model of equal active FLOP at equal steps: who wins is said."""
    kinds = {"dense": {"ffn": 192}, "mixture": {"experts": 8, "topk": 2, "moe_ffn": 96}}
    found = {name: [] for name in kinds}
    told = {}
    for seed in SEEDS[:3]:
        for name, own in kinds.items():
            told[name] = run(pool, text(seed, **own), room / f"lm-{name}-{seed}")
            found[name].append(told[name]["final"]["test"]["loss"])
    size = {name: told[name]["model"] for name in kinds}
    for name, losses in found.items():
        active = f"{size[name]['active']:,} of {size[name]['parameters']:,} parameters a token"
        loss = f"{statistics.mean(losses):.4f} ± {statistics.stdev(losses):.4f}"
        say(f"{name} LM, 3 seeds: test loss {loss} a byte; {active}")
    gap = [b - a for a, b in zip(found["mixture"], found["dense"], strict=True)]
    verdict = "beats" if min(gap) > 0 else "does not beat"
    say(f"the mixture {verdict} the dense model at every seed: dense minus mixture {[round(each, 4) for each in gap]}")
    assert abs(size["mixture"]["active"] / size["dense"]["active"] - 1) < 0.02


@pytest.mark.parametrize("how", ["drop", "merge"])
def test_fewer_experts(room, how):
    """Two of eight experts of the mixture gone without training again: perplexity before and after."""
    before = deploy(room / "lm-mixture-0", room / "mixture")
    after = deploy(room / "lm-mixture-0", room / f"mixture-{how}", keep=6, merge=how == "merge")
    shown = (f"{each['metrics']['perplexity']:.3f}, {each['stored_bytes'] / 1e3:.0f} kB" for each in (before, after))
    say(f"6 of 8 experts, {how}: perplexity {', now '.join(shown)}")
    assert after["stored_bytes"] < before["stored_bytes"]


def test_int8_is_faster(tmp_path):
    """A wide language model in int8 with integer products answers sooner than in fp32 on a CPU that has them."""
    made = shape_model(Shape("wide", family="bench", layers=2, hidden=1024, vocab=256, heads=16, ffn=4096))
    state, text_ = dict(build(made).state_dict()), model_toml(made)
    ids = torch.randint(0, 256, (4, 128))
    torch.set_num_threads(1)
    times = {}
    for form in ("fp32", "int8", "int8-dynamic"):
        export(tmp_path / form, text_, state, Facts("language-model", "bytes", (128,)), form=form)
        module = load(tmp_path / form).module
        with torch.no_grad():
            times[form] = time_call(lambda module=module: module(ids), budget=3.0).seconds
    gains = ", ".join(f"{form} {1e3 * each:.0f} ms ({times['fp32'] / each:.2f} x)" for form, each in times.items())
    say(f"2 layers of 1024 channels, 512 tokens, CPU time of one thread: {gains}; others used {others():.1f} cores")
    assert times["int8-dynamic"] < times["fp32"]


def test_before_and_after(room, dense):
    """Every exported digits model in one table, as JSON and as a page under out/bench."""
    names = ("dense-fp32", "ranks2-fp32", *PRUNED, "int8", "int8-dynamic", "fp8", "int4", "int4-aware", "student-alone",
             "student-distilled")  # fmt: skip
    table = compared({name: room / name for name in names}, trained(room / "dense").data.test)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "before_after.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    write_compression(table, OUT / "before_after.html")
    say(time.strftime("%Y-%m-%d"))
    show(sheet(table))
    assert note(table) in sheet(table).notes
    assert table["rows"][0]["scores"]["accuracy"] == pytest.approx(dense)
