"""Plans priced with an expert placement: what a trace changes, what it leaves alone, and that plan.json keeps it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from planner.cli import main
from planner.collectives.all_to_all import distinct
from planner.estimate import estimate
from planner.explain.words import words
from planner.place import grid_of, rates_of, routed
from planner.placement.base import Grid, Trace
from planner.placement.scenario import Router, make
from planner.plan import estimate_json, plan_json, prepare, read
from planner.setting import Routing
from planner.strategy import Choices, Degrees, Workload

INPUTS = ("qwen3-30b-a3b", "--cluster", "h100-superpod", "--gpus", "64", "--global-batch", "256", "--quiet")
SHAPE = ("--ep", "16", "--micro-batch", "2", "--recompute", "selective")


def plan_of(ep=16, model="qwen3-30b-a3b"):
    """A plan on 64 GPUs, eight a node."""
    plan = prepare(model, "h100-superpod", 64, Workload(4096, 256, 1e12), Choices(), "nemo")
    return replace(plan, degrees=Degrees(64, ep=ep, micro_batch=2))


@pytest.fixture(scope="module")
def trace():
    """A skewed router of 128 experts, eight a token."""
    return make("zipf", Router(128, 8), Grid(2, 8), 2, 4096)


@pytest.fixture
def file(trace, tmp_path, monkeypatch):
    """The trace in a file, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    np.savez("trace.npz", ids=trace.ids, src=trace.src, seq=trace.seq)
    return "trace.npz"


def step(plan):
    """The step of a plan by its terms [s]."""
    return estimate_json(plan.setting, plan.degrees)["time"]


def test_even_loads_are_the_default(trace):
    """Imbalance 1 and the copies of uniform draws, stated, give bit for bit the same as nothing stated."""
    plan = plan_of()
    copies = float(distinct(2.0, 8.0) * (1.0 - 8.0 / 16.0))
    stated = replace(plan, setting=replace(plan.setting, routing=Routing(1.0, copies)))
    assert step(stated) == step(plan)


@pytest.mark.parametrize(
    ("changed", "terms"), [(Routing(1.5), {"compute"}), (Routing(1.0, 2.0), {"expert"}), (Routing(1.0, 0.2), set())]
)
def test_what_uneven_experts_cost(changed, terms):
    """Load of the fullest rank slows the GEMMs down, copies between nodes the exchange; neither touches the rest.

    A shorter exchange hides less of the launches.
    """
    plan = plan_of()
    before, after = step(plan), step(replace(plan, setting=replace(plan.setting, routing=changed)))
    assert {name for name in terms if after[name] > before[name]} == terms
    assert {name for name in after if after[name] > before[name]} <= terms | {
        "bubble",
        "stragglers",
        "imbalance",
        "launch",
    }
    assert sum(after.values()) < sum(before.values()) or terms
    assert all(after[name] == before[name] for name in ("tensor", "context", "optimizer", "host"))


def test_a_trace_prices_a_plan(trace):
    """The imbalance is at least 1, a token leaves for other nodes at most, and the parameters stay where they are."""
    plan = routed(plan_of(), trace, "trace.npz", {})
    assert plan.routing == "trace.npz"
    assert plan.setting.routing.imbalance > 1.0
    assert 0.0 < plan.setting.routing.copies < 2.0
    assert replace(plan, setting=replace(plan.setting, routing=Routing()), routing="") == plan_of()
    priced = estimate_json(plan.setting, plan.degrees)
    sentence = next(line for line in words(plan, priced) if "trace.npz" in line)
    assert f"{plan.setting.routing.imbalance:.3f} times the mean load" in sentence
    assert "% of step time against even loads" in sentence


def test_groups_alike_are_placed_once(trace):
    """What is known of a grid is taken; another grid is placed for itself."""
    known = {}
    first = routed(plan_of(), trace, "t", known)
    known[grid_of(plan_of())] = Routing(3.0)
    assert first.setting.routing != Routing(3.0)
    assert routed(plan_of(), trace, "t", known).setting.routing == Routing(3.0)
    assert routed(plan_of(ep=8), trace, "t", known).setting.routing != Routing(3.0)


def test_one_node_has_no_traffic_between_nodes(trace):
    """Within a node only the imbalance is known; without expert parallelism there is nothing to place."""
    assert routed(plan_of(ep=8), trace, "t", {}).setting.routing.copies is None
    assert routed(plan_of(ep=1), trace, "t", {}) == plan_of(ep=1)


def test_loads_alone_give_an_imbalance_only(trace):
    """A trace of one expert a token says nothing of how many nodes eight of them are on."""
    alone = Trace(trace.ids[:, :, :1], trace.src, 128, trace.seq)
    found = routed(plan_of(), alone, "t", {}).setting.routing
    assert found.imbalance > 1.0
    assert found.copies is None


def test_rates_are_those_of_the_cost_formulas():
    """GEMMs run below the peak, the network is that of the tiers, values are as wide as the plan's."""
    plan = plan_of()
    rates = rates_of(plan)
    near, far = plan.setting.tiers[:2]
    assert 0.2 * plan.setting.gpu.peak["bf16"] < rates.flops < plan.setting.gpu.peak["bf16"]
    assert rates.nic == far.bandwidth * far.efficiency
    assert rates.nvlink == near.bandwidth * near.efficiency
    assert rates.alpha >= far.launch
    assert rates.dispatch_bytes == rates.combine_bytes == 2.0


@pytest.mark.parametrize("routing", [Routing(1.25, 0.75), Routing(1.25)])
def test_plan_json_keeps_the_routing(tmp_path, routing):
    """Written and read back, a plan costs the same; the trace is among its inputs and sources."""
    plan = plan_of()
    plan = replace(plan, setting=replace(plan.setting, routing=routing), routing="trace.npz")
    data = plan_json(plan)
    assert data["inputs"]["routing"] == {"trace": "trace.npz", "imbalance": 1.25, "copies": routing.copies}
    assert {row["what"] for row in data["provenance"]} >= {"routing"}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    again = read(path)
    assert again == plan
    assert estimate(again.setting, again.degrees).step == estimate(plan.setting, plan.degrees).step


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"trace": "t", "imbalance": 0.5, "copies": 1.0}, ("inputs.routing.imbalance", "at least 1")),
        ({"trace": "t", "imbalance": 1.5, "copies": -1.0}, ("inputs.routing.copies", "from 0")),
        ({"trace": "t", "imbalance": 1.5}, ("inputs.routing.copies", "missing")),
        ({"trace": 5, "imbalance": 1.5, "copies": None}, ("inputs.routing.trace", "a name")),
        ("trace.npz", ("inputs.routing.trace", "inputs.routing.imbalance", "inputs.routing.copies")),
    ],
)
def test_a_wrong_routing_is_refused(tmp_path, capsys, wrong, words):
    """Each value by its key."""
    data = plan_json(plan_of())
    data["inputs"]["routing"] = wrong
    (tmp_path / "plan.json").write_text(json.dumps(data), encoding="utf-8")
    assert main(["explain", str(tmp_path / "plan.json")]) == 3
    told = capsys.readouterr().err
    assert all(word in told for word in words)


def test_estimate_with_a_trace(file, capsys):
    """The plan that is written carries the trace, and explains it."""
    assert main(["estimate", *INPUTS, *SHAPE, "--routing", file, "--out", "plan.json"]) == 0
    capsys.readouterr()
    assert main(["explain", "plan.json"]) == 0
    assert "Placed by trace.npz" in capsys.readouterr().out


def test_search_with_a_trace_orders_by_it(file, capsys):
    """Every plan with expert parallelism is priced with the trace, in the order of the new times."""
    words = ["search", *INPUTS, "--fix", "pp=1,cp=1", "--max-micro-batch", "2", "--top", "5", "--json"]
    assert main([*words, "--routing", file]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(words) == 0
    even = json.loads(capsys.readouterr().out)
    assert len(found["plans"]) == 5
    times = [plan["step_time_s"] for plan in found["plans"]]
    assert times == sorted(times)
    assert times[0] > even["plans"][0]["step_time_s"]
    assert {row["what"] for row in found["provenance"]} >= {"routing"}
    assert not {row["what"] for row in even["provenance"]} & {"routing"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("llama3.1-8b", *INPUTS[1:]), ("--routing", "no experts")),
        (("mixtral-8x7b", *INPUTS[1:], "--ep", "8"), ("expert ids 0 to 7",)),
        (("llama4-scout", *INPUTS[1:], "--ep", "8"), ("expert ids 0 to 15",)),
        (("qwen3-30b-a3b", *INPUTS[1:], "--routing", "none.npz"), ("none.npz", "no such file")),
    ],
)
def test_a_trace_of_another_model_is_refused(file, capsys, arguments, told):
    """Before anything is priced, with or without --dry-run."""
    for more in ((), ("--dry-run",)):
        assert main(["estimate", arguments[0], "--routing", file, *arguments[1:], *more]) == 3
        text = capsys.readouterr().err
        assert all(word in text for word in told)


def test_another_number_of_experts_a_token_is_refused(trace, file, capsys):
    """Two experts a token are no trace of a router of eight."""
    np.savez("two.npz", ids=trace.ids[:, :, :2], src=trace.src)
    assert main(["search", *INPUTS, "--routing", "two.npz"]) == 3
    assert "expected 8 experts a token" in capsys.readouterr().err
