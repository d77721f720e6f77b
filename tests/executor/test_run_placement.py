"""`plan run --placement`: a placement.json of the proxy's experts is run, any other is refused with every reason."""

import json

import numpy as np
import pytest

from executor.ranks import Ranks
from executor.run import Options, run, small
from planner.errors import InputError
from planner.place import read_slots
from tests.executor.runs import options, plan

EXPERTS = plan(ep=8)


def written(folder, proxy, **changed):
    """A placement.json that hands every rank its experts in turn, with the first ones twice, or changed as told."""
    experts, ranks = proxy.setting.model.experts, int(proxy.degrees.ep)
    slot = np.concatenate([np.arange(experts), np.arange(ranks)])
    gpu = np.concatenate([np.arange(experts) % ranks, (np.arange(ranks) + 1) % ranks])
    share = np.where(np.isin(slot, np.arange(ranks)), 0.5, 1.0)
    routed = [
        number
        for number, kind in enumerate(proxy.setting.model.order)
        if any(getattr(part, "expert", False) for part in proxy.setting.model.kinds[kind].parts)
    ]
    row = {"slot_expert": slot.tolist(), "slot_gpu": gpu.tolist(), "share": share.tolist()}
    data = {"experts": experts, "nodes": 1, "gpus_per_node": ranks, "layers": [{"layer": n, **row} for n in routed]}
    path = folder / "placement.json"
    path.write_text(json.dumps({**data, **changed}), encoding="utf-8")
    return path


def test_a_placed_run_learns_as_the_plain_one(tmp_path):
    """The losses of the steps and the check against one process are those of experts in order; the record names it."""
    proxy = small(EXPERTS, options(ranks=2)).plan
    assert int(proxy.degrees.ep) == 2
    path = written(tmp_path, proxy)
    with Ranks(2, timeout=30) as pool:
        plain, placed = (run(EXPERTS, options(steps=2, check=True, placement=given), pool) for given in (None, path))
    assert [step.loss for step in placed.record.steps] == pytest.approx(
        [step.loss for step in plain.record.steps], rel=1e-5
    )
    assert placed.record.check.loss_error <= 1e-5
    assert placed.record.check.gradient_error <= 1e-5
    assert str(path) in [row["name"] for row in placed.record.provenance["inputs"]]


def test_a_placement_of_another_model_is_refused(tmp_path):
    """Other experts, another group of GPUs and layers without experts: all said at once, with what to do."""
    proxy = small(EXPERTS, Options(ranks=2, size=options().size)).plan
    path = written(tmp_path, proxy, experts=384, gpus_per_node=64, layers=[{"layer": 999}])
    with pytest.raises(InputError) as caught:
        read_slots(path, proxy)
    for words in ("experts", "the run has 2 ranks of ep", "the run has experts in layers", "plan place"):
        assert words in str(caught.value)


def test_a_missing_placement_is_made_by_plan_place(tmp_path):
    """The sentence names the command that writes one."""
    with pytest.raises(InputError, match=r"does not exist; write one with `plan place --out FILE`"):
        read_slots(tmp_path / "none.json", EXPERTS)


def test_ranks_need_equally_many_slots(tmp_path):
    """A slot more on one rank is refused."""
    proxy = small(EXPERTS, options(ranks=2)).plan
    path = written(tmp_path, proxy)
    data = json.loads(path.read_text(encoding="utf-8"))
    data["layers"][0]["slot_gpu"][0] = 1 - data["layers"][0]["slot_gpu"][0]
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match="equally many slots"):
        read_slots(path, proxy)
