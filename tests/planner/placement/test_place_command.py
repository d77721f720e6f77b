"""`plan place` end to end: with a plan and without, its JSON, its exit codes, the same bytes for the same seed."""

import hashlib
import json
import re

import numpy as np
import pytest

from planner.cli import main
from planner.placement.base import Grid
from tests.planner.placement import toys
from tests.planner.placement.command import FILE, GRID, MADE, SIZES, other

pytestmark = pytest.mark.usefixtures("folder")

LAYER = {
    *("layer", "slot_expert", "slot_gpu", "share", "metrics", "baseline", "bounds"),
    *("phy2log", "log2phy", "replicas", "moved", "moved_between_nodes"),
}
METRICS = {"balance", "nodes_per_token", "nic_bytes", "all_to_all_s", "layer_s"}


@pytest.fixture
def call(capsys):
    """Run `plan` with these arguments: exit code, stdout, stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def placed(call, *arguments):
    """The JSON of a placement that must succeed."""
    code, out, err = call(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_the_json_has_what_is_promised(call):
    """All keys of the contract, lists as long as the slots, shares that sum to 1, maps inverse to each other."""
    data = placed(call, *FILE, "--slots", "40", "--groups", "4")
    assert data.keys() >= {"schema_version", "experts", "nodes", "gpus_per_node", "layers", "algorithm", "seconds"}
    assert (data["experts"], data["nodes"], data["gpus_per_node"], data["slots"]) == (32, 4, 2, 40)
    assert [layer["layer"] for layer in data["layers"]] == [3, 7]
    for layer in data["layers"]:
        assert layer.keys() >= LAYER
        assert {len(layer[key]) for key in ("slot_expert", "slot_gpu", "share", "phy2log")} == {40}
        assert set(layer["baseline"]) == {"eplb_global", "eplb_hierarchical"}
        assert all(each.keys() >= METRICS for each in (layer["metrics"], *layer["baseline"].values()))
        assert layer["bounds"].keys() >= {"balance", "nodes_per_token"}
        total = np.bincount(layer["slot_expert"], weights=layer["share"], minlength=32)
        assert total == pytest.approx(np.ones(32))
        for expert, slots in enumerate(layer["log2phy"]):
            own = [slot for slot in slots if slot >= 0]
            assert [layer["phy2log"][slot] for slot in own] == [expert] * layer["replicas"][expert]
            assert len({layer["slot_gpu"][slot] for slot in own}) == len(own)


def test_a_plan_brings_its_own_sizes(call, folder):
    """With a plan, experts, group and rates are the plan's: two nodes for ep 16 on nodes of eight."""
    estimate = ("estimate", "qwen3-30b-a3b", "--cluster", "h100-superpod", "--gpus", "64", "--ep", "16", "--quiet")
    assert call(*estimate, "--out", "plan.json")[0] == 0
    trace = toys.trace(128, 8, Grid(2, 8), 640, 1)
    np.savez("wide.npz", ids=trace.ids, src=trace.src, seq=trace.seq)
    data = placed(call, "place", "plan.json", "--routing", "wide.npz", "--slots", "144", "--quiet")
    assert (data["experts"], data["nodes"], data["gpus_per_node"], data["slots"]) == (128, 2, 8, 144)
    made = placed(call, "place", "plan.json", "--scenario", "balanced", "--tokens", "1k", "--layers", "1", "--quiet")
    assert made["slots"] == 128
    code, _, err = call("place", "plan.json", "--routing", "wide.npz", "--hidden", "64", "--nic", "9 GB/s")
    assert code == 3
    assert "--hidden, --nic" in err
    assert "the plan states this" in err


def test_a_plan_without_expert_parallelism_has_nothing_to_place(call, folder):
    """The fault names ep."""
    estimate = ("estimate", "llama3.1-8b", "--cluster", "h100-superpod", "--gpus", "64", "--quiet")
    assert call(*estimate, "--out", "plan.json")[0] == 0
    code, out, err = call("place", "plan.json", "--routing", "trace.npz")
    assert (code, out) == (3, "")
    assert "ep > 1" in err


def test_the_same_seed_writes_the_same_bytes(call, folder):
    """placement.json depends on the inputs and the seed only."""
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert call(*FILE, "--seed", seed, "--out", f"{name}.json")[0] == 0
    a, b, c = ((folder / f"{name}.json").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_an_old_placement_is_read_back(call, folder):
    """What was written is an --old placement; against itself nothing moves if it must pay soon, nor under no budget."""
    assert call(*FILE, "--out", "old.json")[0] == 0
    again = placed(call, *FILE, "--old", "old.json", "--horizon", "10")
    assert sum(layer["moved_between_nodes"] for layer in again["layers"]) == 0
    other = toys.trace(32, 2, GRID, 480, 2, seed=9)
    np.savez("later.npz", ids=other.ids, src=other.src, seq=other.seq)
    later = ("place", "--routing", "later.npz", *SIZES, "--old", "old.json")
    kept = placed(call, *later, "--budget", "0")
    assert max(layer["moved_between_nodes"] for layer in kept["layers"]) == 0


def test_several_traces_are_followed(call, folder):
    """A decision at each later trace, in JSON and as a table; where a move pays, the answer is the last trace's."""
    later = toys.trace(32, 2, GRID, 1920, 2, cv=1.0, seed=9)
    np.savez("later.npz", ids=later.ids, src=later.src, seq=later.seq, layers=np.array([3, 7]))
    both = (*FILE, "--routing", "later.npz")
    data = placed(call, *both, "--horizon", "1e9", "--out", "last.json")
    (step,) = data["series"]
    assert step.keys() >= {"routing", "keep_s", "replan_s", "move_s", "moved", "moved_between_nodes", "replanned"}
    assert (step["routing"], step["replanned"]) == ("later.npz", True)
    assert step["moved"] == np.mean([layer["moved"] for layer in data["layers"]])
    assert "series" not in placed(call, *FILE)
    code, out, err = call(*both, "--horizon", "1", "--report", "page.html")
    assert (code, err) == (0, "")
    assert "Along the traces" in out
    assert "kept" in out
    assert 'id="figure-replanning"' in (folder / "page.html").read_text(encoding="utf-8")
    still = placed(call, *both, "--budget", "0", "--horizon", "1e9")["layers"]
    assert max(layer["moved_between_nodes"] for layer in still) == 0


def test_the_inputs_are_named_with_their_hashes(call, folder):
    """Each file by its content; a made-up trace by its options."""
    assert call(*FILE, "--out", "old.json")[0] == 0
    rows = placed(call, *FILE, "--old", "old.json")["provenance"]
    assert [(row["what"], row["name"]) for row in rows] == [("routing", "trace.npz"), ("old", "old.json")]
    assert rows[0]["sha256"] == hashlib.sha256((folder / "trace.npz").read_bytes()).hexdigest()
    (one,), (other,) = (placed(call, *MADE, "--seed", seed)["provenance"] for seed in (0, 1))
    assert one["what"] == "scenario"
    assert one["name"] == other["name"] == "zipf"
    assert one["sha256"] != other["sha256"]


def test_rates_are_those_given(call):
    """Half the bandwidth doubles what depends on it; a slower GEMM is a longer one."""
    rates = ("--nic", "400 Gb/s", "--nvlink", "160 GB/s", "--alpha", "10 us", "--flops", "600 TFLOP/s")
    plain, stated = placed(call, *MADE), placed(call, *MADE, *rates)
    for one, same in zip(plain["layers"], stated["layers"], strict=True):
        assert (one["slot_expert"], one["slot_gpu"]) == (same["slot_expert"], same["slot_gpu"])
        assert one["metrics"] == pytest.approx(same["metrics"], rel=1e-12)
    slow = placed(call, *MADE, "--alpha", "0 s", "--flops", "1 GFLOP/s")["layers"][0]["metrics"]
    assert slow["gemm_s"] > 1e5 * plain["layers"][0]["metrics"]["gemm_s"]
    assert slow["all_to_all_s"] < plain["layers"][0]["metrics"]["all_to_all_s"]


def test_loads_alone_are_said_to_be_loads(call, folder):
    """From tokens per expert a placement comes with a warning of what its metrics can't mean."""
    rows = [{"layer": 3, "iter": step, "tpe": [5 + expert + step for expert in range(32)]} for step in range(4)]
    (folder / "loads.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    loud = [word for word in other("--routing", "loads.jsonl", drop=("--routing",)) if word != "--quiet"]
    code, out, err = call(*loud, "--json")
    assert code == 0
    assert "one expert a token" in err
    assert json.loads(out)["layers"][0]["metrics"]["nodes_per_token"] == 1.0


def test_memory_gives_the_slots(call):
    """An expert is 3 · 256 · 128 parameters of 14 B: room for five on each GPU and layer, two layers, is 13.8 MB."""
    each = 3 * 256 * 128 * 14
    assert placed(call, *FILE, "--memory", f"{2 * 5 * each + 1} B")["slots"] == 40


def test_a_dry_run_writes_nothing(call, folder):
    """It checks the inputs, says so on stderr, and leaves the folder as it was."""
    before = sorted(folder.iterdir())
    loud = [word for word in FILE if word != "--quiet"]
    code, out, err = call(*loud, "--dry-run", "--out", "x.json", "--report", "x.html")
    assert (code, out) == (0, "")
    assert "2 layers of 480 tokens" in err
    assert sorted(folder.iterdir()) == before


def test_a_report_is_one_page_of_figures(call, folder):
    """All figures of a first placement; with an --old one also what moves, whatever the dispatcher."""
    assert call(*FILE, "--slots", "40", "--out", "old.json", "--report", "first.html")[0] == 0
    assert call(*FILE, "--slots", "40", "--old", "old.json", "--per-batch", "--report", "again.html")[0] == 0
    first, again = ((folder / name).read_text(encoding="utf-8") for name in ("first.html", "again.html"))
    common = {"expert_load", "gpu_load", "node_traffic", "coactivation", "routing_drift"}
    assert set(re.findall(r'id="figure-(\w+)"', first)) == common
    assert set(re.findall(r'id="figure-(\w+)"', again)) == {*common, "migration"}
    assert "32 experts on 8 GPUs" in first


def test_loads_alone_have_a_report_too(call, folder):
    """Tokens per expert on one node: no pairs and no traffic to draw, the rest is there."""
    rows = [{"iter": number, "layer": 0, "tpe": list(range(1, 9))} for number in range(4)]
    (folder / "loads.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    sizes = ("--experts", "8", "--nodes", "1", "--gpus-per-node", "4", "--hidden", "64", "--expert-hidden", "64")
    code, _, err = call("place", "--routing", "loads.jsonl", *sizes, "--slots", "11", "--report", "r.html", "--quiet")
    assert (code, err) == (0, "")
    page = (folder / "r.html").read_text(encoding="utf-8")
    assert set(re.findall(r'id="figure-(\w+)"', page)) == {"expert_load", "gpu_load", "routing_drift"}
    assert "EPLB has no policy for 11 slots" in page


@pytest.mark.parametrize("form", ["table", "csv", "md"])
def test_people_get_a_table(call, form):
    """The placement beside EPLB, and the bounds, in each form."""
    code, out, err = call(*MADE, "--format", form)
    assert (code, err) == (0, "")
    assert "this placement" in out
    assert "eplb_global" in out


def test_scenarios_are_placed(call):
    """Each made-up trace is placed without a file, by groups too."""
    data = placed(call, *MADE, "--groups", "4", "--topk-groups", "2", "--slots", "40", "--per-batch")
    assert data["layers"][0]["metrics"]["nodes_per_token"] <= 2.0
