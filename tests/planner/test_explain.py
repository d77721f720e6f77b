import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from planner.cuts import by_framework
from planner.estimate import evaluate, units
from planner.explain.document import document
from planner.explain.sensitivity import sensitivity
from planner.explain.tree import tree
from planner.explain.waterfall import waterfall
from planner.explain.words import binding, words
from planner.formula import BOOK
from planner.plan import estimate_json, peak_flops, prepare
from planner.strategy import Choices, Degrees, Workload

PLANS = {
    "data parallel only": ("llama3.1-8b", Degrees(64), Choices()),
    "experts": ("mixtral-8x7b", Degrees(64, tp=2, pp=2, ep=8), Choices()),
    "interleaved": ("mixtral-8x7b", Degrees(64, pp=4, vpp=2, ep=4), Choices(schedule="interleaved", recompute="full")),
    "context": ("llama3.1-8b", Degrees(64, tp=2, cp=4), Choices(zero=3, recompute="selective")),
}
BATCH = 256
ENDS = ("embedding", "head", "mtp")


def made(name):
    """One plan of the table."""
    model, degrees, choices = PLANS[name]
    plan = prepare(model, "h100-superpod", 64, Workload(8192, BATCH, 1e12), choices, "megatron-core")
    plan = replace(plan, degrees=degrees)
    plan.check()
    return plan


@pytest.fixture(params=PLANS)
def plan(request):
    """Each plan of the table."""
    return made(request.param)


@pytest.fixture
def priced(plan):
    """Its estimate as JSON."""
    return estimate_json(plan.setting, plan.degrees)


def nodes(calls):
    """Every node below."""
    for call in calls:
        yield call
        yield from nodes(call["calls"])


def test_each_formula_has_unit_source_and_words(plan):
    """Each node of the tree is a row of the formula book with unit, source and a sentence of what it is."""
    found = list(nodes(tree(plan)["calls"]))
    assert len(found) > 20
    assert [node["name"] for node in found if not (node["unit"] and node["source"] and node["doc"])] == []
    assert {node["name"] for node in found} <= BOOK.keys()
    assert {row["name"] for row in document(plan)["formulas"]} == {node["name"] for node in found}


def test_the_tree_arrives_at_the_estimate(plan, priced):
    """The value of the step_time node is the step of the estimate, field by field."""
    values = [node["value"] for node in nodes(tree(plan)["calls"]) if node["name"] == "cost.step.step_time"]
    assert values == [priced["time"]]
    assert sum(values[0].values()) == priced["step_time_s"]


def test_explaining_changes_nothing(plan, priced):
    """The estimate after an explanation is the estimate before it."""
    document(plan)
    assert estimate_json(plan.setting, plan.degrees) == priced


def test_the_waterfall_falls_from_peak_to_achieved(plan, priced):
    """The first row is the peak, the last the achieved rate; each row is the one above less its loss."""
    peak = peak_flops(plan.setting)
    rows = waterfall(priced, peak)
    assert (rows[0]["name"], rows[0]["value"]) == ("peak", peak)
    assert (rows[-1]["name"], rows[-1]["value"]) == ("achieved", priced["model_flops_per_s_per_gpu"])
    assert math.isclose(sum(row["loss"] for row in rows), rows[0]["value"] - rows[-1]["value"], rel_tol=1e-9)
    assert all(row["loss"] >= 0.0 for row in rows)
    for above, row in pairwise(rows):
        assert math.isclose(above["value"] - row["loss"], row["value"], rel_tol=1e-9)


def test_every_part_of_the_step_falls_somewhere(plan, priced):
    """Each part of the step that takes time, but compute, is a row of the waterfall."""
    lost = [name for name, seconds in priced["time"].items() if seconds > 0.0 and name != "compute"]
    assert len(waterfall(priced, peak_flops(plan.setting))) == len(lost) + 3


def test_better_hardware_is_never_slower(plan):
    """A faster peak, bandwidth or efficiency never adds time, a longer latency never saves any; the strongest first."""
    rows = sensitivity(plan)
    slack = 1e-9
    for row in rows:
        gain = -1.0 if "latency" in row["input"] else 1.0
        assert gain * row["plus"] <= slack, row
        assert gain * row["minus"] >= -slack, row
    strength = [max(abs(row["minus"]), abs(row["plus"])) for row in rows]
    assert strength == sorted(strength, reverse=True)
    assert strength[0] > 0.01
    assert strength[0] < 0.12


def test_only_experts_feel_the_grouped_gemm():
    """The efficiency of expert GEMMs moves a mixture of experts and leaves a dense model alone."""
    moved = {name: {row["input"]: row for row in sensitivity(made(name))} for name in ("data parallel only", "experts")}
    assert moved["experts"]["gpu.grouped.efficiency"]["plus"] < 0.0
    assert moved["data parallel only"].get("gpu.grouped.efficiency", {"plus": 0.0})["plus"] == 0.0


def test_the_words_name_each_axis_in_use(plan, priced):
    """A sentence for each axis above 1 with its degree, and none for an axis that is 1."""
    text, strategy = words(plan, priced), priced["strategy"]
    says = {
        "tp": r"Tensor parallelism .* {} GPUs",
        "pp": r"layers are cut into {} stages",
        "cp": r"Context parallelism .* over {} GPUs",
        "ep": r"experts of a layer are spread over {} GPUs",
        "vpp": r"each stage in {} chunks",
    }
    for axis, pattern in says.items():
        said = any(re.search(pattern.format(strategy[axis]), line) for line in text)
        assert said is (strategy[axis] > 1), (axis, text)
    assert f"{strategy['dp']} copies" in text[0]
    assert any(f"ZeRO-{strategy['zero']}" in line for line in text)


@pytest.mark.parametrize(("name", "said"), [("gpt3-175b", False), ("llama3.1-8b", True)])
def test_a_cut_by_work_is_told_where_it_matters(name, said):
    """Llama's output matrix slows the last of equal stages by two layers; GPT-3's is a third of a layer."""
    plan = prepare(name, "h100-superpod", 512, Workload(2048, 1024, 1e12), Choices(), "nemo")
    plan = replace(plan, degrees=Degrees(512, tp=1 if said else 8, pp=4))
    plan.check()
    priced = estimate_json(plan.setting, plan.degrees)
    shape = by_framework(plan.setting.model, 4, 1, "nemo")
    even = evaluate(units(plan.setting, plan.degrees), shape, plan.setting, plan.degrees).step.total
    longer = 100.0 * (float(even) / priced["step_time_s"] - 1.0)
    line = [line for line in words(plan, priced) if "wants a layout" in line]
    assert bool(line) is said is (longer >= 1.0)
    assert not said or f"which nemo makes without one, take {longer:.1f} % longer" in line[0]


def test_the_binding_sentence_has_numbers_with_units(plan, priced):
    """What binds is told with bytes used and there, and the largest loss with its share."""
    text = binding(plan, priced)
    assert text.startswith(("Memory binds: ", "Time binds: "))
    assert re.search(r"uses \d[\d.]* [GT]i?B of \d[\d.]* [GT]i?B \(\d+ %\)", text)
    assert re.search(r"with \d+ % of the step\.$", text)


def test_a_plan_that_does_not_fit_says_so():
    """A plan over the memory of its GPU is bound by memory."""
    plan = prepare("llama3.1-405b", "h100-superpod", 64, Workload(8192, BATCH, 1e12), Choices(), "megatron-core")
    plan = replace(plan, degrees=Degrees(64, tp=8))
    text = binding(plan, estimate_json(plan.setting, plan.degrees))
    assert text.startswith("Memory binds: ")
    assert "does not fit" in text


def test_stages_hold_all_layers_and_the_peak(plan, priced):
    """There is a row per stage, and the fullest holds the peak of the estimate."""
    stages = document(plan)["stages"]
    assert [row["stage"] for row in stages] == list(range(priced["strategy"]["pp"]))
    layers = sum(int(n) for row in stages for n, kind in re.findall(r"(\d+) (\w+)", row["layers"]) if kind not in ENDS)
    assert layers == plan.setting.model.layers
    assert max(row["total"] for row in stages) == priced["peak_memory_bytes"]
    assert all(math.isclose(sum(row["memory"].values()), row["total"], rel_tol=1e-12) for row in stages)
    assert all(row["time_s"] > 0.0 for row in stages)
