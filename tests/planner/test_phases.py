"""A step by phase and stage agrees with the closed form where both price the same, and counts work once per rank."""

from dataclasses import fields, replace

import pytest

from hwprofiles import load
from planner import stack
from planner.estimate import estimate
from planner.plan import Plan, of_json, plan_json, prepare
from planner.setting import Setting
from planner.simulate.phases import mean_phases, simulated, stage_phases
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import DENSE, KIMI_K2, MOE, model, setting

FP32 = Choices(precision="fp32")
WORK = Workload(256, 8, 1e6)


def here(shape, ranks, **degrees):
    """A plan on the CPU cores of one machine."""
    cluster, eager = load.cluster("cpu-loopback", ranks), stack.load("torch-eager")
    where = Setting(model(shape), cluster, WORK, FP32, eager)
    return Plan(shape.name, "cpu-loopback", where, Degrees(ranks, **degrees))


@pytest.mark.parametrize("shape", [DENSE, MOE], ids=lambda shape: shape.name)
def test_without_a_pipeline_the_phases_are_the_step(shape):
    """One stage: forward, backward, collectives, optimizer and host sum to the closed form's step."""
    plan = here(shape, 2, ep=2 if shape is MOE else 1)
    (stage,) = stage_phases(plan.setting, plan.degrees)
    step = estimate(plan.setting, plan.degrees).step
    assert stage.total == pytest.approx(float(step.total) - float(step.stragglers))
    assert stage.collectives["data"] == pytest.approx(float(step.data))
    assert stage.optimizer == pytest.approx(float(step.optimizer))


def test_stages_share_the_work_of_the_model():
    """Over the stages, forward work is that of one stage that holds everything (but for passes of the runtime)."""
    whole, cut = here(DENSE, 1), here(DENSE, 2, pp=2)
    quiet = [replace(p.setting, stack=replace(p.setting.stack, pass_gap=0.0)) for p in (whole, cut)]
    one = stage_phases(quiet[0], whole.degrees)[0].forward
    both = [stage.forward for stage in stage_phases(quiet[1], cut.degrees)]
    assert sum(both) == pytest.approx(one)
    assert len(both) == 2


def test_a_message_counts_at_both_ends_once():
    """Two stages exchange each micro-batch twice; one rank's mean share is one message per micro-batch."""
    plan = here(DENSE, 2, pp=2)
    record = simulated(plan)
    gap = plan.setting.stack.message_gap
    heavier = replace(plan.setting.stack, message_gap=gap + 1e-3)
    more = simulated(replace(plan, setting=replace(plan.setting, stack=heavier)))
    added = more.phases.collectives["pipeline"] - record.phases.collectives["pipeline"]
    assert added == pytest.approx(8 * 1e-3)


def test_the_record_of_a_prediction_is_a_record():
    """One step, a rank's work for each rank, memory, events of every stage, the plan it stands for."""
    record = simulated(here(DENSE, 4, tp=2, pp=2))
    assert record.origin == "simulated"
    assert (record.ranks, len(record.steps[0].cpu_s), len(record.peak_memory_bytes)) == (4, 4, 4)
    assert {event.rank for event in record.events} == {0, 1}
    assert record.plan["estimate"]["strategy"]["pp"] == 2
    assert record.phases.bubble > 0.0


def test_ranks_that_share_cores_take_as_long_as_all_their_work():
    """Four ranks on two cores: the wall clock is at least half of the sum of their work."""
    record = simulated(here(DENSE, 4))
    assert record.steps[0].wall_s >= sum(record.steps[0].cpu_s) / 2
    alone = simulated(here(DENSE, 2))
    assert alone.steps[0].wall_s == pytest.approx(max(alone.steps[0].cpu_s))


def test_the_mean_over_stages():
    """Each field is the mean of the stages', the bubble what is given."""
    plan = here(DENSE, 2, pp=2)
    stages = stage_phases(plan.setting, plan.degrees)
    mean = mean_phases(stages, 0.5)
    assert mean.forward == pytest.approx((stages[0].forward + stages[1].forward) / 2)
    assert mean.bubble == 0.5
    assert set(mean.collectives) == {"tensor", "context", "expert", "pipeline", "data"}


def test_fp32_moves_twice_the_bytes_and_keeps_no_master():
    """Messages and activations of four bytes; weights are their own master copy."""
    where = setting(DENSE, 8, Choices(zero=0), Workload(4096, 64, 1e12), cluster="h100-superpod")
    where = replace(where, stack=replace(where.stack, collective_gap=0.0))
    cluster = replace(where.cluster, gpu=with_fp32(where.cluster.gpu))
    full = replace(where, cluster=cluster, choices=Choices(zero=0, precision="fp32"))
    degrees = Degrees(8, tp=2)
    low, high = (max(estimate(s, degrees).stages, key=lambda m: float(m.total)) for s in (where, full))
    assert high.activations / low.activations == pytest.approx(2.0, rel=0.1)
    assert high.parameters == pytest.approx(2 * low.parameters)
    assert high.optimizer == pytest.approx(low.optimizer * 8 / 12)
    assert estimate(full, degrees).step.tensor > 1.3 * estimate(where, degrees).step.tensor


def with_fp32(gpu):
    """An H100 with a curve for fp32."""
    return replace(gpu, matmul={**gpu.matmul, "fp32": gpu.matmul["bf16"]})


@pytest.mark.parametrize(
    ("mechanism", "degrees", "phase"),
    [
        ("collective_gap", {"tp": 2}, "tensor"),
        ("cut_gap", {"tp": 2}, "forward"),
        ("shard_gap", {}, "forward"),
        ("shard_traffic", {}, "backward"),
        ("pass_gap", {"pp": 2}, "forward"),
        ("tensor_gap", {}, "optimizer"),
        ("optimizer_traffic", {}, "optimizer"),
        ("pointwise_kernels", {}, "forward"),
    ],
)
def test_each_mechanism_of_an_eager_stack_costs_where_it_works(mechanism, degrees, phase):
    """Twice the mechanism makes its phase dearer; without what it belongs to it costs nothing."""
    plan = here(DENSE, 2, **degrees)
    value = getattr(plan.setting.stack, mechanism)
    more = replace(plan.setting.stack, **{mechanism: 2 * value})
    base, dear = (stage_phases(replace(plan.setting, stack=s), plan.degrees)[0] for s in (plan.setting.stack, more))
    assert seconds(dear, phase) > seconds(base, phase)
    alone = here(DENSE, 1)
    if mechanism in {"collective_gap", "cut_gap", "shard_gap", "shard_traffic"}:
        same = replace(alone.setting, stack=more)
        assert stage_phases(same, alone.degrees)[0].total == stage_phases(alone.setting, alone.degrees)[0].total


def seconds(stage, phase):
    """A phase of a stage, a collective or not."""
    return getattr(stage, phase) if phase in {f.name for f in fields(stage)} else stage.collectives[phase]


def test_stacks_of_gpus_pay_none_of_it():
    """What an eager stack pays is nothing where the host runs ahead."""
    where = setting(KIMI_K2, 1024).stack
    assert (where.pointwise_kernels, where.optimizer_traffic) == (1.0, 1.0)
    gaps = ("message_gap", "cut_gap", "pass_gap", "shard_gap", "shard_traffic", "tensor_gap")
    assert {getattr(where, name) for name in gaps} == {0.0}
    assert where.scatter_by_reduce is False


def test_a_plan_is_read_back_from_its_object():
    """of_json takes what plan_json gives."""
    made = prepare("qwen3-0.6b", "cpu-loopback", 2, Workload(128, 4, 1e6), FP32, "torch-eager")
    again = of_json(plan_json(made), "here")
    assert (again.setting, again.degrees) == (made.setting, made.degrees)
