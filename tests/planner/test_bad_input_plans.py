import copy
import json

import pytest

from planner.cli import main
from tests.planner.bad_inputs import ESTIMATE, SPARSE, Bad, check


def plan_file(text, *words):
    """`explain` of a plan.json of this text."""
    return Bad(("explain", "p.json"), 3, ("p.json", *words), {"p.json": text})


def strategy(**values):
    """An edit of the plan's strategy."""
    return lambda plan: plan["estimate"]["strategy"].update(values)


TABLE = {
    # plan files
    "plan that is missing": Bad(("explain", "plan.json"), 3, ("plan.json", "does not exist", "plan search")),
    "directory as a plan": Bad(("explain", "plan.json"), 3, ("plan.json", "directory"), {"plan.json/x": ""}),
    "large plan": Bad(("simulate", "big.json"), 3, ("big.json", "64 MiB"), {"big.json": SPARSE}),
    "truncated plan": plan_file('{"schema_version": 1, "inp', "JSON", "line 1, column 23"),
    "empty plan": plan_file("", "JSON"),
    "plan not in UTF-8": plan_file(b'{"a": "\xff"}', "UTF-8", "byte 7"),
    "plan that is a number": plan_file("7", "int", "object"),
    "plan with NaN": plan_file('{"estimate": NaN}', "NaN"),
    "plan nested too deep": plan_file("[" * 100_000, "JSON"),
    "report of no plan": Bad(("report", "plan.json"), 3, ("plan.json", "does not exist")),
    "simulation of no plan": Bad(("simulate", "plan.json", "--trace", "t.json"), 3, ("plan.json", "does not exist")),
}
EDITS = {
    "plan without estimate": (lambda p: p.pop("estimate"), "estimate", "missing"),
    "plan without a degree and a name": (
        lambda p: (p["estimate"]["strategy"].pop("tp"), p["inputs"].pop("stack")),
        "strategy.tp",
        "inputs.stack",
        "missing",
    ),
    "plan with a degree in words": (strategy(tp="eight"), "strategy.tp", "'eight'"),
    "plan with half a degree": (strategy(pp=1.5), "strategy.pp", "1.5"),
    "plan with true for a degree": (strategy(pp=True), "strategy.pp", "True"),
    "plan with a degree of zero": (strategy(tp=0), "strategy.tp", "at least 1"),
    "plan of a negative world": (strategy(world=-64), "-64"),
    "plan edited to be illegal": (
        strategy(tp=3, ep=2),
        "strategy.world",
        "strategy.heads",
        "strategy.experts",
        "did you mean",
    ),
    "plan of an unknown schedule": (strategy(schedule="1f1p"), "schedule", "'1f1p'", "did you mean '1f1b'"),
    "plan of an unknown precision": (strategy(precision="bf17"), "precision", "'bf17'", "did you mean 'bf16'"),
    "plan of an unknown optimizer": (strategy(optimizer="adan"), "optimizer", "'adan'", "did you mean 'adam'"),
    "plan of an unknown master copy": (strategy(master="bf17"), "master", "'bf17'", "did you mean 'bf16'"),
    "plan of unknown methods": (
        strategy(prune="2:5", quantize="int9", messages="fp9"),
        "strategy.prune",
        "'2:5'",
        "did you mean '2:4'",
        "strategy.quantize",
        "strategy.messages",
    ),
    "plan of pruning by more than all": (strategy(prune="unstructured:1.5"), "between 0 and 1", "1.5"),
    "plan of a method in a number": (strategy(prune=7), "strategy.prune", "expected a name", "7"),
    "plan of a teacher without a name": (strategy(teacher_gpus=8), "--teacher-gpus", "--distill-from"),
    "plan of an unknown teacher": (strategy(distill_from="lama"), "model", "'lama'"),
    "plan of fp8 messages in bf16": (strategy(messages="fp8"), "strategy.messages", "bf16"),
    "plan with a critical batch of nothing": (
        lambda p: p["workload"].update(critical_batch={"tokens": 0}),
        "critical_batch.tokens",
        "critical_batch.law",
    ),
    "plan with a ramp-up in words": (lambda p: p["workload"].update(ramp_up="slow"), "ramp_up", "'slow'"),
    "plan with a ramp-up that falls": (
        lambda p: p["workload"].update(
            ramp_up=[{"global_batch": 64, "until": 2e9}, {"global_batch": 32, "until": 1e9}]
        ),
        "end after",
        "larger than 64",
    ),
    "plan with a ramp-up past its end": (
        lambda p: p["workload"].update(ramp_up=[{"global_batch": 10**6, "until": 1e18}]),
        "must stay below",
        "must end before",
    ),
    "plan of an unknown ZeRO": (strategy(zero=9), "zero", "9"),
    "plan of an unknown recompute": (strategy(recompute="all"), "recompute", "'all'"),
    "plan of an unknown order": (strategy(order="dp-tp"), "order", "'dp-tp'"),
    "plan of a number as a schedule": (strategy(schedule=["1f1b"]), "schedule"),
    "plan with sequence_parallel in words": (strategy(sequence_parallel="yes"), "sequence_parallel", "'yes'"),
    "plan with an empty batch": (lambda p: p["workload"].update(global_batch=0), "workload.global_batch", "0"),
    "plan with tokens in words": (lambda p: p["workload"].update(tokens="15T"), "workload.tokens", "'15T'"),
    "plan with a sequence in words": (lambda p: p["workload"].update(seq_len=[]), "workload.seq_len"),
    "plan of a model by number": (lambda p: p["inputs"].update(model=7), "inputs.model", "7"),
    "plan of an unknown model": (lambda p: p["inputs"].update(model="llama3.1-8x"), "did you mean 'llama3.1-8b'"),
    "plan whose estimate is a list": (lambda p: p.update(estimate=[]), "estimate"),
    "plan with a derived degree changed": (
        strategy(dp=7, micro_batches=1),
        "strategy.dp",
        "7",
        "32",
        "strategy.micro_batches",
    ),
    "plan of another schema": (lambda p: p.update(schema_version=99), "schema_version", "99", "1"),
}


@pytest.fixture(scope="module")
def good_plan(tmp_path_factory):
    """The plan.json of one legal strategy."""
    path = tmp_path_factory.mktemp("good") / "plan.json"
    assert main([*ESTIMATE, "--tp", "2", "--quiet", "--json", "--out", str(path)]) == 0
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TABLE)
def test_refused_in_clear_words(name, tmp_path, monkeypatch, capsys):
    """A plan file that is none is refused: exit code, a sentence of what and where, no traceback, data or file."""
    monkeypatch.chdir(tmp_path)
    check(TABLE[name], tmp_path, capsys)


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_plan_is_checked(name, tmp_path, monkeypatch, capsys, good_plan):
    """A plan.json with a wrong, missing or illegal entry is refused with the key and the value found."""
    edit, *words = EDITS[name]
    plan = copy.deepcopy(good_plan)
    edit(plan)
    monkeypatch.chdir(tmp_path)
    check(Bad(("explain", "plan.json"), 3, tuple(words), {"plan.json": json.dumps(plan)}), tmp_path, capsys)
