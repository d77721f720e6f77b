"""`plan place` with wrong input: one clear sentence for each fault."""

import pytest

from tests.planner.bad_inputs import Bad, check
from tests.planner.placement.command import MADE, SIZES, other

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
    "traces of other layers": Bad(
        other("--routing", "two.jsonl"),
        3,
        ("two.jsonl: layers", "those of trace.npz"),
        {"two.jsonl": "\n".join(f'{{"layer": 3, "iter": {step}, "tpe": {[9] * 32}}}' for step in range(2))},
    ),
    "two traces with faults": Bad(
        ("place", "--routing", "no.npz", "--routing", "none.jsonl", *SIZES), 3, ("no.npz", "none.jsonl")
    ),
    "rates of nothing": Bad(
        other("--nvlink", "0 B/s", "--flops", "5 GB/s"), 3, ("--nvlink", "more than 0", "--flops", "a rate")
    ),
    "NIC of nothing": Bad(other("--nic", "0 B/s"), 3, ("--nic", "more than 0")),
}


@pytest.mark.parametrize("name", TABLE)
def test_bad_input_is_refused(name, folder, capsys):
    """One clear sentence for each fault, the exit code, no data, no traceback, no file left."""
    check(TABLE[name], folder, capsys)
