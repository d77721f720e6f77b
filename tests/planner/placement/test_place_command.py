"""`plan place` end to end: with a plan and without, its JSON, its exit codes, the same bytes for the same seed."""

import json
import re

import numpy as np
import pytest

from planner.cli import main
from planner.placement.base import Grid
from tests.planner.bad_inputs import Bad, check
from tests.planner.placement import toys

GRID = Grid(4, 2)
SIZES = (
    *("--experts", "32", "--nodes", "4", "--gpus-per-node", "2", "--hidden", "256", "--expert-hidden", "128"),
    "--quiet",
)
FILE = ("place", "--routing", "trace.npz", *SIZES)
MADE = ("place", "--scenario", "zipf", "--topk", "2", "--tokens", "1024", "--layers", "1", *SIZES)
LAYER = {
    *("layer", "slot_expert", "slot_gpu", "share", "metrics", "baseline", "bounds"),
    *("phy2log", "log2phy", "replicas", "moved", "moved_between_nodes"),
}
METRICS = {"balance", "nodes_per_token", "nic_bytes", "all_to_all_s", "layer_s"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with a trace."""
    monkeypatch.chdir(tmp_path)
    trace = toys.trace(32, 2, GRID, 480, 2)
    np.savez("trace.npz", ids=trace.ids, src=trace.src, seq=trace.seq, layers=np.array([3, 7]))
    return tmp_path


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
    """What was written is an --old placement; against itself nothing moves, under a budget little does."""
    assert call(*FILE, "--out", "old.json")[0] == 0
    again = placed(call, *FILE, "--old", "old.json")
    assert sum(layer["moved_between_nodes"] for layer in again["layers"]) == 0
    other = toys.trace(32, 2, GRID, 480, 2, seed=9)
    np.savez("later.npz", ids=other.ids, src=other.src, seq=other.seq)
    later = ("place", "--routing", "later.npz", *SIZES, "--old", "old.json")
    kept = placed(call, *later, "--budget", "0")
    assert max(layer["moved_between_nodes"] for layer in kept["layers"]) == 0


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


def saved(**arrays):
    """The bytes of an .npz."""
    with open("made.npz", "wb") as file:  # noqa: PTH123  numpy wants a file
        np.savez(file, **arrays)
    with open("made.npz", "rb") as file:  # noqa: PTH123
        return file.read()


def other(*changed, base=FILE, drop=()):
    """The arguments with these added, and these options and their values left out."""
    words = list(base)
    for name in drop:
        at = words.index(name)
        del words[at : at + 2]
    return (*words, *changed)


TABLE = {
    "no trace": Bad(("place", *SIZES), 2, ("--routing FILE", "--scenario NAME")),
    "two traces": Bad(other("--scenario", "zipf"), 2, ("--routing FILE", "--scenario NAME")),
    "unknown scenario": Bad(("place", "--scenario", "zip", *SIZES), 2, ("'zip'", "balanced", "drift")),
    "unknown option": Bad(other("--slot", "9"), 2, ("--slot",)),
    "negative seed": Bad(other("--seed", "-1"), 2, ("--seed",)),
    "horizon of nothing": Bad(other("--horizon", "nan"), 2, ("--horizon", "nan")),
    "missing file": Bad(other("--routing", "no.npz", drop=("--routing",)), 3, ("no.npz", "no such file")),
    "sizes left out": Bad(("place", "--routing", "trace.npz"), 3, ("--experts", "--nodes", "--hidden", "needed")),
    "too few slots": Bad(other("--slots", "31"), 3, ("--slots", "32 experts", "31")),
    "too many slots": Bad(other("--slots", "257"), 3, ("--slots", "at most 256")),
    "no room in memory": Bad(other("--memory", "1 MB"), 3, ("--memory", "32 experts")),
    "memory in hours": Bad(other("--memory", "3 h"), 3, ("--memory",)),
    "slots and memory": Bad(other("--slots", "32", "--memory", "1 GiB"), 3, ("not both",)),
    "groups that don't divide": Bad(other("--groups", "5"), 3, ("--groups", "32 experts", "5")),
    "fewer experts than the trace's": Bad(
        other("--experts", "16", drop=("--experts",)), 3, ("ids[0, ", "expert ids 0 to 15")
    ),
    "fewer GPUs than the trace's": Bad(other("--nodes", "2", drop=("--nodes",)), 3, ("src[", "source GPU 0 to 3")),
    "scenario's options with a file": Bad(other("--topk", "2", "--layers", "3"), 3, ("--layers, --topk", "--scenario")),
    "scenario without topk": Bad(other(base=MADE, drop=("--topk",)), 3, ("--topk", "needed")),
    "topk over the experts": Bad(other("--topk", "33", base=MADE, drop=("--topk",)), 3, ("--topk", "32 experts")),
    "budget without an old placement": Bad(other("--budget", "3"), 3, ("--budget", "--old")),
    "old placement that is missing": Bad(other("--old", "none.json"), 3, ("none.json",)),
    "old placement of something else": Bad(other("--old", "old.json"), 3, ("old.json", "layers"), {"old.json": "{}"}),
    "old placement with a hole": Bad(
        other("--old", "old.json"),
        3,
        ("old.json: layers[0]", "slot_expert, slot_gpu and share"),
        {"old.json": '{"layers": [{"slot_expert": [0], "slot_gpu": "x"}, {}]}'},
    ),
    "old placement without all experts": Bad(
        other("--old", "old.json"),
        3,
        ("old.json: layers[0].slot_expert", "every expert needs a slot", "1"),
        {"old.json": '{"layers": [{"slot_expert": [0], "slot_gpu": [0], "share": [1.0]}, {}]}'},
    ),
    "old placement that is no JSON": Bad(other("--old", "old.json"), 3, ("old.json", "JSON"), {"old.json": "{half"}),
    "plan that is no plan": Bad(("place", "p.json", "--routing", "trace.npz"), 3, ("p.json",), {"p.json": "{}"}),
    "NIC of nothing": Bad(other("--nic", "0 B/s"), 3, ("--nic", "more than 0")),
}


@pytest.mark.parametrize("name", TABLE)
def test_bad_input_is_refused(name, folder, capsys):
    """One clear sentence for each fault, the exit code, no data, no traceback, no file left."""
    check(TABLE[name], folder, capsys)
