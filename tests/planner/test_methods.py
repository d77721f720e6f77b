"""Training methods in a plan: search with each, its file, its explanation, its page."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from planner.cli import plan as cli
from planner.commands.output import to_json
from planner.estimate import estimate
from planner.explain.document import document
from planner.explain.methods import methods, plain
from planner.plan import prepare, read
from planner.search.run import Query, parse_fix, search
from planner.simulate.phases import simulated
from planner.strategy import Choices, Degrees, Workload
from reports.page import plan_page

WORK = Workload(4096, 512, 1e12)
FIXED = "tp=1,pp=4,cp=1,etp=1,micro_batch=1,replicas=1,recompute=none,zero=1"
MODEL = "olmoe-1b-7b"
CHOSEN = {
    **{name: Choices(optimizer=name) for name in ("adamw", "adam-8bit", "adafactor", "muon", "lion", "sgd-plain")},
    "bf16": Choices(optimizer="muon", master="bf16"),
    "stochastic": Choices(master="bf16-stochastic"),
    "2:4": Choices(prune="2:4"),
    "2:4-experts": Choices(prune="2:4-experts"),
    "unstructured": Choices(prune="unstructured:0.9"),
    "experts": Choices(prune="experts:32"),
    "int8": Choices(quantize="int8"),
    "int4": Choices(quantize="int4", prune="2:4"),
    "int8-dynamic": Choices(quantize="int8-dynamic"),
    "fp8": Choices(quantize="fp8", precision="fp8", messages="fp8"),
    "beside": Choices(distill_from="qwen3-8b"),
    "apart": Choices(distill_from="qwen3-8b", teacher_gpus=32, teacher_topk=64),
}


def found(choices, gpus=64):
    """The best plan of a small space with these methods."""
    made = prepare(MODEL, "h100-superpod", gpus, WORK, choices, "megatron-core")
    return search(Query(made, top=1, fix=parse_fix((FIXED,)))).plans[0]


@pytest.mark.parametrize("name", CHOSEN)
def test_a_search_finds_a_plan_with_each_method(name, tmp_path):
    """It is found, keeps its choices through its file, explains itself, and its page says what it buys and risks."""
    best = found(CHOSEN[name])
    assert {key: getattr(best.setting.choices, key) for key in ("optimizer", "master", "prune", "quantize")} == {
        key: getattr(CHOSEN[name], key) for key in ("optimizer", "master", "prune", "quantize")
    }
    path = tmp_path / "plan.json"
    written = document(best)
    path.write_text(to_json(written), encoding="utf-8")
    again = read(path)
    assert (again.setting.choices, again.setting.teacher, again.degrees) == (
        best.setting.choices,
        best.setting.teacher,
        best.degrees,
    )
    assert document(again) == written
    told = written["methods"]
    assert told["chosen"]
    assert told["sources"]
    assert all(risk["source"] for risk in told["risks"])
    page = plan_page(written)
    assert "Training methods" in page
    assert all(sentence[:20].replace("&", "&amp;") in page for sentence in told["buys"])


@pytest.mark.parametrize("name", CHOSEN)
def test_a_search_prices_as_an_estimate_does(name):
    """Step time and peak memory that the sweep found are those of the plan alone, bit by bit."""
    made = prepare(MODEL, "h100-superpod", 64, WORK, CHOSEN[name], "megatron-core")
    swept = search(Query(made, top=3, fix=parse_fix(("tp=1,cp=1,etp=1,micro_batch=1,recompute=none",))))
    for row, best in enumerate(swept.plans):
        alone = estimate(best.setting, best.degrees)
        assert swept.found.best.time[row] == alone.step.total
        assert swept.found.best.peak[row] == alone.peak


def test_a_plain_plan_has_no_such_section():
    """Adam, fp32 masters, nothing compressed: no methods, no batch, and the page is without both."""
    written = document(found(Choices()))
    assert (written["methods"], written["batch"]) == (None, None)
    assert "Training methods" not in plan_page(written)


def test_the_plain_plan_beside_it_is_the_same_without_methods():
    """Same degrees and schedule, Adam, bf16, the whole model, and of a split cluster the student's GPUs alone."""
    apart = found(CHOSEN["apart"])
    other = plain(apart)
    assert other.degrees == apart.degrees
    assert other.setting.cluster.gpus == 32
    assert other.setting.teacher is None
    pruned = plain(found(CHOSEN["experts"]))
    assert pruned.setting.model.experts == 64
    told = methods(found(CHOSEN["fp8"]))
    assert told["plan"]["stored_bytes"] < told["plain"]["stored_bytes"]
    assert told["plan"]["step_time_s"] != told["plain"]["step_time_s"]


def test_what_the_plain_plan_may_not_is_said():
    """Degrees that only the pruned model allows: nothing is compared, in words and in null."""
    best = found(Choices(prune="experts:48"))
    best = replace(best, degrees=replace(best.degrees, ep=3))
    told = methods(best)
    assert told["plain"] is None
    assert "illegal" in told["buys"][0]


def test_more_compression_holds_less_of_the_model():
    """Optimizer bytes order as their states do, and a pruned mixture needs less memory than the whole one."""
    peaks = {
        name: document(found(CHOSEN[name]))["estimate"]["memory"]["optimizer"] for name in ("adamw", "muon", "bf16")
    }
    assert peaks["adamw"] > peaks["muon"] > peaks["bf16"]
    whole = document(found(Choices()))["estimate"]["peak_memory_bytes"]
    assert document(found(CHOSEN["experts"]))["estimate"]["peak_memory_bytes"] < whole


def test_the_phases_of_a_step_have_the_teacher():
    """A simulated step with a teacher beside the student works longer forward."""
    best = found(CHOSEN["beside"])
    alone = replace(best, setting=replace(best.setting, teacher=None))
    assert simulated(best).phases.forward > 1.5 * simulated(alone).phases.forward


def test_the_commands_take_the_methods():
    """`plan estimate` and `plan search` with all options at once, in a table and as JSON."""
    base = [MODEL, "--cluster", "h100-superpod", "--gpus", "64", "--global-batch", "512", "--tokens", "1T"]
    given = ["--optimizer", "muon", "--master", "bf16", "--prune", "2:4", "--quantize", "fp8", "--messages", "fp8",
             "--distill-from", "qwen3-0.6b", "--critical-batch", "4M", "--ramp-up", "128@100B,256@300B"]  # fmt: skip
    shown = CliRunner().invoke(cli, ["estimate", *base, *given], catch_exceptions=False)
    assert "Training methods" in shown.output
    assert "times the critical batch of 4.0M" in shown.output
    asked = CliRunner().invoke(cli, ["search", *base, *given, "--fix", FIXED, "--json"], catch_exceptions=False)
    strategy = json.loads(asked.stdout)["plans"][0]["strategy"]
    expected = {
        "optimizer": "muon", "master": "bf16", "prune": "2:4", "quantize": "fp8", "precision": "fp8",
        "distill_from": "qwen3-0.6b",
    }  # fmt: skip
    assert {key: strategy[key] for key in expected} == expected


def test_an_older_plan_file_is_plain(tmp_path):
    """A plan.json from before the methods reads as one without them."""
    best = found(Choices())
    written = document(best)
    for key in ("master", "prune", "quantize", "distill_from", "teacher_gpus", "teacher_topk", "messages"):
        del written["estimate"]["strategy"][key]
    path = tmp_path / "plan.json"
    path.write_text(to_json(written), encoding="utf-8")
    assert read(path).setting.choices == best.setting.choices


def test_degrees_of_one_plan_of_every_optimizer_stay_legal():
    """The methods' rules are the same for a mask and for one plan: the default degrees pass them all."""
    for choices in CHOSEN.values():
        made = prepare(MODEL, "h100-superpod", 64, WORK, choices, "megatron-core")
        replace(made, degrees=Degrees(int(made.degrees.world), pp=2)).check()
