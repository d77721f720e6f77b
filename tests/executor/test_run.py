import json
import shutil
from dataclasses import replace

import pytest
import torch

from executor.checkpoint import Checkpoints
from executor.ranks import Ranks
from executor.run import run
from executor.saved import found, place
from executor.trainer import Trainer
from planner.errors import InputError
from planner.plan import read
from planner.record import Record
from planner.strategy import Choices
from tests.executor.runs import options, plan, tensors

EXPERTS = plan(pp=8, ep=8, vpp=2, choices=Choices(schedule="interleaved"))
TENSOR = plan(tp=8, ep=8, choices=Choices(zero=2))
PIPE = plan(pp=8, ep=8)


@pytest.fixture(scope="module")
def pool():
    """Four ranks for all tests of this file."""
    with Ranks(4, timeout=30) as made:
        yield made


@pytest.fixture(scope="module")
def first(pool, tmp_path_factory):
    """Six steps of tp 2, dp 2 with a checkpoint every other step: folder and outcome."""
    out = tmp_path_factory.mktemp("first")
    return out, run(TENSOR, options(out, ranks=4, every=2, keep=2), pool)


def losses(outcome):
    """Loss by step."""
    return {step.step: step.loss for step in outcome.record.steps}


def test_a_plan_of_a_thousand_gpus_trains_here(pool, tmp_path):
    """Four ranks run its schedule with experts; the loss falls, and everything that was promised is measured."""
    outcome = run(EXPERTS, options(tmp_path, ranks=4, steps=12), pool)
    record = outcome.record
    assert outcome.proxy.plan.setting.choices.schedule == "interleaved"
    assert record.steps[-1].loss < record.steps[0].loss - 0.5
    assert record.proxy["text"]["held_out_loss"] < record.steps[0].loss - 0.5
    assert [step.step for step in record.steps] == list(range(1, 13))
    assert all(len(step.cpu_s) == 4 and min(step.cpu_s) > 0 and step.wall_s > 0 for step in record.steps)
    assert len(record.peak_memory_bytes) == 4
    assert min(record.peak_memory_bytes) > 50e6
    phases = record.phases
    assert min(phases.forward, phases.backward, phases.optimizer, phases.bubble) > 0
    assert {"expert", "pipeline", "data"} <= set(phases.collectives)
    assert {event.rank for event in record.events} == {0, 1, 2, 3}


def test_what_is_written_is_read_again(pool, tmp_path):
    """record.json is the record, and its plan is a plan.json that every command reads, of the very model trained."""
    outcome = run(PIPE, options(tmp_path, ranks=2, steps=2), pool)
    written = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert Record.from_json(written) == Record.from_json(outcome.record.to_json())
    again = read(tmp_path / "proxy.json")
    assert again.degrees == outcome.proxy.plan.degrees
    assert replace(again.setting.model, name="") == replace(outcome.proxy.plan.setting.model, name="")
    assert written["plan"]["estimate"]["strategy"]["pp"] == 2


def test_a_check_compares_with_one_process(pool):
    """Loss and every gradient of the first step are those of one rank; without the option nothing is compared."""
    checked, plain = (run(PIPE, options(ranks=2, steps=1, check=asked), pool).record.check for asked in (True, False))
    assert checked.loss_error <= 1e-5
    assert checked.gradient_error <= 1e-5
    assert plain is None


def test_only_the_newest_checkpoints_are_kept(first):
    """Of three checkpoints two stay, complete, and nothing half-written."""
    out, _ = first
    assert [saved.step for saved in found(out / "checkpoints")] == [6, 4]
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"step-00000004", "step-00000006"}


def resumed(first, tmp_path, pool, wanted, ranks):
    """A run of `wanted` to step 6 from a copy of the checkpoint of step 4."""
    out, _ = first
    folder = tmp_path / "checkpoints"
    shutil.copytree(place(out / "checkpoints", 4), place(folder, 4))
    return run(wanted, options(tmp_path, ranks=ranks, every=2, resume=True), pool)


def test_a_resumed_run_is_the_same_to_the_last_bit(first, tmp_path, pool):
    """Losses, weights, moments, generators: going on from step 4 gives what never stopping gave."""
    out, whole = first
    again = resumed(first, tmp_path, pool, TENSOR, 4)
    assert losses(again) == {step: loss for step, loss in losses(whole).items() if step > 4}
    one, other = (tensors(found(folder / "checkpoints")[0]) for folder in (out, tmp_path))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.record.provenance["resumed_from"] == 4


@pytest.mark.parametrize(("wanted", "ranks"), [(PIPE, 4), (TENSOR, 2), (PIPE, 1)], ids=["pp2-dp2", "dp2", "one rank"])
def test_another_layout_goes_on_with_the_same_curve(first, tmp_path, pool, wanted, ranks):
    """tp 2 · dp 2 becomes pp 2 · dp 2, two ranks or one, and the losses stay those of the first run."""
    _, whole = first
    again = resumed(first, tmp_path, pool, wanted, ranks)
    assert again.proxy.plan.degrees.tp == 1
    for step in (5, 6):
        assert losses(again)[step] == pytest.approx(losses(whole)[step], rel=1e-5)


def reshard(job_plan, source, target):
    """On each rank: read a checkpoint into another layout and write it again."""
    setting = job_plan.setting
    trainer = Trainer(setting.model, job_plan.degrees, setting.choices, setting.workload, seed=99)
    state = trainer.state()
    reader, writer = Checkpoints(source.path.parent, 9, 30.0), Checkpoints(target, 9, 30.0)
    reader.load(source, state)
    writer.save(source.step, trainer.state(), {})
    writer.finish()


def test_another_layout_holds_the_same_bits(first, tmp_path, pool):
    """Every weight and moment that pp 2 · dp 2 reads is the one that tp 2 · dp 2 wrote."""
    out, _ = first
    source = found(out / "checkpoints")[0]
    again = resumed(first, tmp_path / "again", pool, PIPE, 4).proxy.plan
    pool.run(reshard, again, source, tmp_path / "target")
    before, after = tensors(source), tensors(found(tmp_path / "target")[0])
    assert after.keys() == {name for name in before if not name.startswith("random")}
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_what_can_not_go_on_is_told(first, pool):
    """A used folder without --resume, a step that is done, another seed or model: told before any rank works."""
    out, _ = first
    with pytest.raises(InputError, match="the checkpoint's model is shrunk from kimi-k2"):
        run(plan("llama3.1-8b"), options(out, ranks=4, resume=True, steps=9), pool)
    for how, text in (
        ({}, "go on with --resume"),
        ({"resume": True}, "has done 6 steps already"),
        ({"resume": True, "steps": 9, "seed": 1}, "the checkpoint has seed 0"),
    ):
        with pytest.raises(InputError, match=text):
            run(TENSOR, options(out, ranks=4, **how), pool)
