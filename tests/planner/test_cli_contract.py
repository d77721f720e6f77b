"""The promises of each command's JSON that scripts rely on: keys, types, units and sums."""

import json
import math

import pytest
from click.testing import CliRunner

from planner.cli import main, plan

MOE = ("mixtral-8x7b", "--cluster", "h100-superpod", "--gpus", "64", "--quiet")
ESTIMATES = {
    "data parallel only": ("llama3.1-8b", *MOE[1:]),
    "tensor and expert": (*MOE, "--tp", "2", "--ep", "8", "--pp", "2"),
    "interleaved, recomputed": (*MOE, "--pp", "4", "--vpp", "2", "--ep", "4", "--recompute", "full"),
    "context, ZeRO-3": (
        "llama3.1-8b",
        *MOE[1:],
        "--cp",
        "4",
        "--seq-len",
        "16384",
        "--global-batch",
        "64",
        "--zero",
        "3",
    ),
    "does not fit": ("llama3.1-405b", *MOE[1:], "--tp", "8"),
}
TYPES = {
    "schema_version": int,
    "strategy": dict,
    "step_time_s": float,
    "interval_s": list,
    "interval_new": list,
    "tokens_per_s": float,
    "tokens_per_s_per_gpu": float,
    "model_flops_per_token": float,
    "model_flops_per_s_per_gpu": float,
    "mfu": float,
    "hfu": float,
    "peak_memory_bytes": float,
    "memory_capacity_bytes": float,
    "fits": bool,
    "time": dict,
    "memory": dict,
    "parameters": dict,
}
STRATEGY = {
    **dict.fromkeys(("world", "tp", "pp", "vpp", "cp", "ep", "etp", "dp", "edp", "micro_batch", "micro_batches"), int),
    **dict.fromkeys(("replicas", "zero", "teacher_gpus", "teacher_topk"), int),
    **dict.fromkeys(("recompute", "schedule", "order", "precision", "optimizer", "master", "messages"), str),
    **dict.fromkeys(("prune", "quantize", "distill_from"), str),
    "sequence_parallel": bool,
}
TIME = {"compute", "recompute", "tensor", "context", "expert", "pipeline", "bubble", "data", "optimizer"}
MEMORY = {"parameters", "gradients", "optimizer", "activations", "communication", "framework"}
PARTS = (
    "embedding", "attention", "dense_ffn", "convolutions", "experts", "shared_experts", "router", "norms", "head",
    "mtp",
)  # fmt: skip


@pytest.fixture
def data(capsys):
    """The JSON of a command line."""

    def run(*arguments):
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def kinds(found):
    """Key -> type of a JSON object."""
    return {key: type(value) for key, value in found.items()}


def hold(estimate):
    """One estimate keeps every promise of its schema."""
    assert {key: kind for key, kind in kinds(estimate).items() if key in TYPES} == TYPES
    assert kinds(estimate["strategy"]) == STRATEGY
    assert kinds(estimate["parameters"]) == {"total": int, "active": int}
    assert estimate["time"].keys() >= TIME
    assert estimate["memory"].keys() >= MEMORY
    step, peak, strategy = estimate["step_time_s"], estimate["peak_memory_bytes"], estimate["strategy"]
    assert all(isinstance(value, float) and value >= -1e-12 * step for value in estimate["time"].values())
    assert all(isinstance(value, float) and value >= 0.0 for value in estimate["memory"].values())
    assert math.isclose(sum(estimate["time"].values()), step, rel_tol=1e-12)
    assert math.isclose(sum(estimate["memory"].values()), peak, rel_tol=1e-12)
    low, high = estimate["interval_s"]
    assert 0.0 < low <= step <= high
    assert low < high
    assert set(estimate["interval_new"]) <= {"family", "generation", "size"}
    assert estimate["fits"] is (peak <= estimate["memory_capacity_bytes"])
    assert 0.0 < estimate["mfu"] <= estimate["hfu"] < 1.0
    each = estimate["model_flops_per_token"] * estimate["tokens_per_s_per_gpu"]
    assert math.isclose(each, estimate["model_flops_per_s_per_gpu"], rel_tol=1e-12)
    assert math.isclose(estimate["tokens_per_s"], strategy["world"] * estimate["tokens_per_s_per_gpu"], rel_tol=1e-12)
    assert strategy["world"] == math.prod(strategy[axis] for axis in ("tp", "pp", "cp", "dp"))
    assert strategy["world"] == math.prod(strategy[axis] for axis in ("etp", "pp", "ep", "edp"))


@pytest.mark.parametrize("name", ESTIMATES)
def test_an_estimate_keeps_its_schema(data, name):
    """`plan estimate --json`: keys, types, parts that sum to step and peak, rates that agree."""
    found = data("estimate", *ESTIMATES[name])
    hold(found)
    assert found.keys() == {*TYPES, "tool_version", "provenance"}
    assert found["fits"] is (name != "does not fit")


def test_an_estimate_prices_what_was_asked(data):
    """The strategy in the answer is the one of the options, with dp, edp and micro-batches worked out."""
    options = {"tp": 2, "pp": 2, "ep": 4, "micro_batch": 2, "zero": 2}
    typed = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    strategy = data("estimate", *MOE, *typed, "--recompute", "selective", "--global-batch", "256")["strategy"]
    assert {key: strategy[key] for key in options} == options
    assert (strategy["dp"], strategy["edp"], strategy["micro_batches"]) == (16, 8, 8)
    assert (strategy["recompute"], strategy["schedule"]) == ("selective", "1f1b")


@pytest.fixture(scope="module")
def searched():
    """The JSON of one search of a mixture of experts."""
    result = CliRunner().invoke(plan, ["search", *MOE, "--json", "--top", "5"])
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_a_search_keeps_its_schema(searched):
    """`plan search --json`: each plan and each point of the frontier is an estimate, and the counts add up."""
    for estimate in (*searched["plans"], *searched["frontier"]):
        hold(estimate)
    assert searched["searched"] == searched["legal"] + sum(searched["dropped"].values()) - searched["dropped"]["memory"]
    assert searched["priced"] == searched["legal"] - searched["dropped"]["memory"]
    assert searched["seconds"] > 0.0
    assert searched["model"]["name"] == "mixtral-8x7b"
    assert searched["cluster"]["gpus"] == 64


def test_the_plans_are_feasible_and_sorted(searched):
    """The plans fit in memory and come fastest first; no plan is faster than the fastest of the frontier."""
    steps = [plan["step_time_s"] for plan in searched["plans"]]
    assert len(steps) == 5
    assert steps == sorted(steps)
    assert all(plan["fits"] for plan in (*searched["plans"], *searched["frontier"]))
    assert searched["frontier"][0]["step_time_s"] == steps[0]


def test_no_point_of_the_frontier_beats_another(searched):
    """Along the frontier the step grows and the memory shrinks."""
    points = [(plan["step_time_s"], plan["peak_memory_bytes"]) for plan in searched["frontier"]]
    assert points == sorted(points)
    assert [memory for _, memory in points] == sorted((memory for _, memory in points), reverse=True)


def test_the_objectives_order_the_plans(data):
    """By memory the leanest plan comes first, by cost the cheapest of several sizes."""
    leanest = data("search", "llama3.1-8b", *MOE[1:], "--objective", "memory")["plans"]
    peaks = [plan["peak_memory_bytes"] for plan in leanest]
    assert peaks == sorted(peaks)
    sizes = data("search", "llama3.1-8b", *MOE[1:4], "32,64", "--quiet", "--objective", "cost")["plans"]
    spent = [plan["step_time_s"] * plan["strategy"]["world"] for plan in sizes]
    assert spent == sorted(spent)


def test_fixed_axes_stay_fixed(data):
    """--fix holds axes and choices in every plan."""
    plans = data("search", *MOE, "--fix", "tp=2,ep=4", "--fix", "recompute=full")["plans"]
    assert plans
    held = {(p["strategy"]["tp"], p["strategy"]["ep"], p["strategy"]["recompute"]) for p in plans}
    assert held == {(2, 4, "full")}


def test_an_estimate_of_a_found_plan_agrees(data, searched):
    """Pricing the best plan of a search by hand gives the same numbers."""
    best = searched["plans"][0]
    s = best["strategy"]
    axes = ("tp", "pp", "vpp", "cp", "ep", "etp", "micro_batch", "replicas", "zero", "recompute", "schedule", "order")
    typed = [word for axis in axes for word in (f"--{axis.replace('_', '-')}", str(s[axis]))]
    found = data("estimate", *MOE, *typed)
    assert {key: found[key] for key in TYPES} == best


@pytest.mark.parametrize("name", ["llama3.1-8b", "deepseek-v3", "gpt-oss-20b"])
def test_parameters_sum_by_part(data, name):
    """`plan models NAME --json`: the parts (MTP apart) sum to the total, active is at most that."""
    found = data("models", name, "--seq-len", "8192")
    parts = found["parameters"]
    assert list(parts) == ["total", "active", *PARTS]
    assert sum(parts[part] for part in PARTS if part != "mtp") == parts["total"] >= parts["active"] > 0
    flops = found["model_flops_per_token"]
    assert flops["seq_len"] == 8192
    assert 6 * parts["active"] * 0.8 < flops["causal"] < flops["full_attention"]
    assert {"name", "family"} <= found.keys()


def test_each_hardware_number_has_unit_and_source(data):
    """`plan hardware NAME --json`: value, unit, text and a citation for each number."""
    for name in ("h100-sxm", "dgx-h100", "h100-superpod"):
        numbers = data("hardware", name)["numbers"]
        assert numbers
        assert all(row["source"].strip() and row["unit"] and row["text"] for row in numbers.values())


def test_a_difference_of_profiles_is_a_ratio(data):
    """`plan hardware diff A B --json` gives both values and B over A, and only what differs."""
    rows = data("hardware", "diff", "h100-sxm", "h200-sxm")["differences"]
    bandwidth = rows["hbm_bandwidth"]
    assert bandwidth["ratio"] == bandwidth["h200-sxm"] / bandwidth["h100-sxm"] > 1.0
    assert data("hardware", "diff", "h100-sxm", "h100-sxm")["differences"] == {}


def test_a_check_out_of_tolerance_is_5(capsys, root):
    """`plan validate --tolerance` ends with 5 when the median error is above it, and still prints the rows."""
    runs = str(root / "tests" / "published" / "runs.yaml")
    arguments = ["validate", runs, "--where", "gpu=H200", "--json", "--quiet"]
    assert main([*arguments, "--tolerance", "0"]) == 5
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"]
    assert "allowed 0 %" in err
    assert main([*arguments, "--tolerance", "1000"]) == 0


VALIDATED = {
    "id", "source", "status", "reason", "measured_step_s", "predicted_step_s", "interval_s", "error",
    "measured_peak_bytes", "predicted_peak_bytes", "memory_error",
}  # fmt: skip
STATISTICS = {"n", "median_abs_error", "mean_abs_error", "p90_abs_error", "bias"}


def test_a_validation_has_the_promised_keys(data, root):
    """`plan validate --json` has every row's promised fields, and a summary of the promised statistics and more."""
    found = data("validate", str(root / "tests" / "published" / "runs.yaml"), "--where", "gpu=A100-SXM-80GB", "--quiet")
    assert all(row.keys() >= VALIDATED for row in found["rows"])
    summary = found["summary"]
    assert summary["time"].keys() == STATISTICS | {"coverage_90"}
    assert summary["memory"].keys() == STATISTICS
    assert summary.keys() >= {
        "by_source",
        "by_gpu",
        "by_precision",
        "by_scale",
        "by_kind",
        "sets",
        "ranking",
        "scaling",
    }
    for part in ("by_source", "by_gpu", "by_precision", "by_scale", "by_kind"):
        assert sum(errors["n"] for errors in summary[part].values()) == summary["time"]["n"], part
    assert summary["unsupported"] == sum(row["status"] == "unsupported" for row in found["rows"])


@pytest.mark.parametrize("form", ["table", "csv", "md"])
def test_a_validation_has_tables_in_every_form(form, capsys, root):
    """Errors by part and the worst rows are there in each form; without a terminal there is no progress."""
    runs = str(root / "tests" / "published" / "runs.yaml")
    assert main(["validate", runs, "--where", "gpu=GB200", "--format", form]) == 0
    out, err = capsys.readouterr()
    assert "mixture of experts" in out
    assert "rows predicted" not in err
