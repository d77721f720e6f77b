import hashlib
import json
import math
from dataclasses import replace

import pytest

from planner.commands.output import to_json
from planner.errors import InputError
from planner.explain.document import document
from planner.plan import plan_json, prepare, provenance, read, training_json
from planner.provenance import fingerprint
from planner.strategy import ORDERS, Choices, Degrees, Workload

WORK = Workload(4096, 512, 1e12)
PLANS = [
    ("llama3.1-8b", Degrees(64), Choices(zero=2)),
    ("llama3.1-8b", Degrees(64, tp=4), Choices(sequence_parallel=False)),
    ("llama3.1-8b", Degrees(64, cp=2, micro_batch=2, replicas=8), Choices(zero=3, recompute="selective")),
    ("mixtral-8x7b", Degrees(64, pp=4, vpp=2, ep=4), Choices(schedule="interleaved", optimizer="adam-bf16")),
    ("mixtral-8x7b", Degrees(64, tp=2, pp=2, ep=2), Choices(order=ORDERS[1], precision="fp8")),
]


def made(model, degrees, choices):
    """A legal plan."""
    plan = replace(prepare(model, "h100-superpod", 64, WORK, choices, "megatron-core"), degrees=degrees)
    plan.check()
    return plan


@pytest.mark.parametrize("row", PLANS, ids=lambda row: f"{row[0]} {row[2].schedule} zero {row[2].zero}")
def test_a_plan_comes_back_from_its_file(tmp_path, row):
    """Reading a plan.json gives the plan that wrote it: same degrees, choices, prices and document."""
    plan, path = made(*row), tmp_path / "plan.json"
    path.write_text(to_json(document(plan)), encoding="utf-8")
    again = read(path)
    assert again.degrees == plan.degrees
    assert again.setting.workload == plan.setting.workload
    assert again.setting.choices == replace(
        plan.setting.choices, sequence_parallel=plan.setting.choices.sequence_parallel or plan.degrees.tp == 1
    )
    assert document(again) == document(plan)


def test_a_plan_of_files_names_them_with_their_hash(tmp_path, root):
    """The provenance of a model file is the hash of its bytes, of a catalogue name that of what it resolves to."""
    config = tmp_path / "small.toml"
    lines = (root / "planner" / "data" / "models" / "llama3.1-8b.toml").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith(("name", "alias", "family")))
    config.write_text(text, encoding="utf-8")
    plan = made(str(config), Degrees(64), Choices())
    model, cluster, stack = provenance(plan)
    assert model == {"what": "model", "name": str(config), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    assert (cluster["name"], stack["name"]) == ("h100-superpod", "megatron-core")
    assert fingerprint("cluster", "h100-superpod", plan.setting.cluster) == cluster
    other = made("llama3.1-8b", Degrees(64), Choices())
    assert provenance(other)[0]["sha256"] != model["sha256"]
    assert provenance(other)[1:] == [cluster, stack]


def test_every_unknown_name_is_told_at_once():
    """Model, cluster and stack are all looked up before anything is refused."""
    with pytest.raises(InputError) as caught:
        prepare("no-model", "no-cluster", 64, WORK, Choices(), "no-stack")
    assert len(caught.value.faults) == 3


def test_training_counts_whole_steps():
    """The run is ceil(tokens / step) steps; money and energy go with its seconds."""
    plan = made("llama3.1-8b", Degrees(64), Choices())
    run = training_json(plan.setting, 2.0)
    steps = math.ceil(1e12 / (4096 * 512))
    cluster = plan.setting.cluster
    assert (run["steps"], run["seconds"]) == (steps, 2.0 * steps)
    assert math.isclose(run["cost_usd"], run["seconds"] * 64 * cluster.price)
    assert math.isclose(run["tokens_per_day"], 4096 * 512 / 2.0 * 86400)
    twice = training_json(plan.setting, 4.0)
    assert all(math.isclose(twice[key], 2 * run[key]) for key in ("seconds", "cost_usd", "energy_wh"))
    assert run["energy_wh"] > run["seconds"] / 3600 * 64 * cluster.gpu.tdp


def test_the_core_of_a_plan_names_its_inputs():
    """plan.json holds the references that price it again, and the cluster's tiers."""
    plan = made(*PLANS[3])
    data = json.loads(to_json(plan_json(plan)))
    assert data["inputs"] == {"model": "mixtral-8x7b", "cluster": "h100-superpod", "stack": "megatron-core"}
    assert data["workload"] == {"seq_len": 4096, "global_batch": 512, "tokens": 1e12}
    assert data["cluster"]["gpus"] == 64
    assert [tier["name"] for tier in data["cluster"]["tiers"]] == [tier.name for tier in plan.setting.tiers]
    assert data["estimate"]["model_flops_per_token"] == data["model"]["model_flops_per_token"]["causal"]


def test_an_illegal_plan_is_told_every_rule_it_breaks():
    """`check` raises with one fault per broken rule."""
    plan = prepare("mixtral-8x7b", "h100-superpod", 64, WORK, Choices(), "megatron-core")
    with pytest.raises(InputError) as caught:
        replace(plan, degrees=Degrees(64, tp=3, ep=5)).check()
    assert {fault.where for fault in caught.value.faults} >= {"strategy.world", "strategy.heads", "strategy.experts"}
