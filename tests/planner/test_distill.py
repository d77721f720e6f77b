"""Distillation: what a teacher costs, beside the student and on GPUs of its own."""

from dataclasses import replace

import numpy as np
import pytest

from planner.cost.teacher import distill_time, forward_time, own_degrees, sending_time
from planner.estimate import estimate
from planner.memory.teacher import teacher_bytes, teacher_logits
from planner.methods import placed
from planner.plan import prepare
from planner.setting import Teacher
from planner.strategy import Choices, Degrees, Workload
from planner.teacher import layers_of, teacher_degrees
from tests.planner.models import DENSE, LATENT, MOE, model, setting

BIG = replace(DENSE, name="big", layers=12, hidden=1024, heads=16, kv_heads=8, ffn=4096)
WORK = Workload(2048, 64, 1e9)


def taught(shape=DENSE, teacher=BIG, gpus=16, own=None, **choices):
    """A student's setting with its teacher."""
    where = setting(shape, gpus, Choices(**choices), WORK)
    return replace(where, teacher=Teacher(model(teacher), own))


def test_a_teacher_beside_the_student_adds_its_forward_pass():
    """The step grows by the teacher's micro-batches and the loss, nothing else changes."""
    where, degrees = taught(), Degrees(16, tp=2)
    alone = estimate(replace(where, teacher=None), degrees).step
    both = estimate(where, degrees).step
    assert both.total - both.teacher == pytest.approx(alone.total)
    ahead = forward_time(where, model(BIG), teacher_degrees(where, degrees))
    loss = both.teacher - ahead
    logits = 8 * 2048 * DENSE.vocab / 2 * 2.0
    assert loss == pytest.approx(4 * logits / (where.gpu.hbm_efficiency * where.gpu.hbm_bandwidth))


def test_the_teachers_forward_is_about_two_flop_a_weight_and_token():
    """No teacher is faster than its forward FLOP at the peak of all GPUs."""
    where, degrees = taught(), Degrees(16)
    flop = model(BIG).flops_per_token(2048, causal=True) / 3 * WORK.tokens_per_step
    ahead = float(forward_time(where, model(BIG), teacher_degrees(where, degrees)))
    assert ahead > flop / (16 * where.gpu.peak["bf16"])
    longer = float(forward_time(where, model(replace(BIG, layers=24)), teacher_degrees(where, degrees)))
    assert longer > 1.8 * ahead


def test_a_teacher_holds_its_weights_once_cut_as_its_student():
    """bf16 weights over tp and pp; experts over all ranks of a stage that divide them, ZeRO-3 dense ones over dp."""
    where = taught(teacher=MOE)
    degrees = Degrees(16, tp=2, pp=2)
    built = model(MOE)
    parameters = built.parameters()
    experts = parameters["experts"]
    cut = teacher_degrees(where, degrees)
    assert (cut.tp, cut.pp, cut.ep, cut.etp) == (2, 2, 8, 1)
    whole = float(teacher_bytes(where, degrees))
    shorter = float(teacher_bytes(taught(teacher=replace(MOE, layers=6)), degrees))
    one = built.kinds[1]
    layer = 2.0 * (one.parameters()["experts"] / 8 + (sum(one.parameters().values()) - one.parameters()["experts"]) / 2)
    assert whole - shorter == pytest.approx(layer / 2, rel=0.02)
    assert whole > 2 * experts / 8 / 2
    assert teacher_bytes(replace(where, choices=Choices(zero=3)), Degrees(16, pp=2)) < teacher_bytes(
        where, Degrees(16, pp=2)
    )


def test_logits_are_held_where_the_head_stands():
    """Two bytes a token and vocabulary entry over tp, on stages with the output matrix."""
    where = taught()
    assert teacher_logits(where, Degrees(16, tp=2), 1) == 2048 * DENSE.vocab / 2 * 2
    assert teacher_logits(where, Degrees(16, tp=2), 0) == 0
    found = estimate(where, Degrees(16, pp=2))
    assert max(float(stage.teacher) for stage in found.stages) >= teacher_bytes(where, Degrees(16, pp=2))


def test_a_teacher_of_its_own_waits_or_is_waited_for():
    """On few GPUs the student waits for it; on many it is ahead, and only logits and loss are left."""
    slow, fast = taught(own=Degrees(1)), taught(own=Degrees(64))
    degrees = Degrees(16)
    assert distill_time(slow, degrees, 0.1) > distill_time(fast, degrees, 0.1)
    forward = float(forward_time(slow, model(BIG), Degrees(1)))
    assert distill_time(slow, degrees, 0.0) - distill_time(slow, degrees, 0.5 * forward) >= 0.49 * forward
    assert teacher_bytes(slow, degrees) == 0.0


def test_a_slower_student_never_makes_the_whole_faster():
    """Student, teacher and logits work at once: the step with all of them grows with the student's own."""
    where = taught(own=Degrees(4))
    steps = np.linspace(0.0, 2.0, 201)
    assert np.all(np.diff(steps + distill_time(where, Degrees(16), steps)) >= -1e-12)


def test_logits_go_through_the_side_with_fewer_cards():
    """Halving the teacher's GPUs doubles what each must send; the receiving side then no longer matters."""
    times = [float(sending_time(taught(own=Degrees(n)), Degrees(16))) for n in (2, 4)]
    assert times[0] == pytest.approx(2 * times[1], rel=0.05)
    assert sending_time(taught(), Degrees(16)) == 0.0


def test_few_logits_are_values_and_places():
    """The 64 largest logits take six bytes each, whole on every rank of tp, and less time on the way."""
    where = taught(teacher_topk=64, own=Degrees(4))
    assert teacher_logits(where, Degrees(16, tp=2), 1) == 2048 * 64 * 6
    assert sending_time(where, Degrees(16)) < 0.1 * sending_time(taught(own=Degrees(4)), Degrees(16))


def test_prediction_modules_do_not_teach():
    """The layers of a teacher are those of its depth, embedding and head."""
    assert sum(n for _, n in layers_of(model(LATENT))) == LATENT.layers + 2


def test_the_cut_of_its_own_gpus_is_the_fastest_that_fits():
    """Every other cut that holds the weights is no faster; where none does there is no cut."""
    where = setting(DENSE, 16, workload=WORK)
    best = own_degrees(where, model(BIG), 8)
    assert best is not None
    slowest = [
        max(forward_time(where, model(BIG), cut), sending_time(taught(own=cut), Degrees(1024)))
        for cut in (best, Degrees(8, tp=8), Degrees(8, pp=8), Degrees(8))
    ]
    assert slowest[0] == min(slowest)
    assert own_degrees(where, model(BIG), 13) is None
    tiny = replace(where, cluster=replace(where.cluster, gpu=replace(where.gpu, hbm_capacity=1e6)))
    assert own_degrees(tiny, model(BIG), 8) is None


def test_a_plan_splits_its_gpus():
    """The student has what the teacher leaves; money is for all of them."""
    work = Workload(4096, 768, 1e12)
    plan = prepare(
        "qwen3-0.6b", "h100-superpod", 64, work, Choices(distill_from="qwen3-8b", teacher_gpus=16), "megatron-core"
    )
    assert (plan.degrees.world, plan.setting.cluster.gpus) == (48, 64)
    assert plan.setting.teacher.degrees.world == 16
    beside = prepare("qwen3-0.6b", "h100-superpod", 64, work, Choices(distill_from="qwen3-8b"), "megatron-core")
    assert beside.degrees.world == 64
    assert placed(beside.setting, beside.setting.teacher.model) == beside.setting.teacher
    assert beside.case.teacher is beside.setting.teacher.model
    assert plan.case.teacher is None


def test_a_batch_is_taught_as_each_plan_alone():
    """The teacher's time and bytes of many plans are those of each, bit by bit."""
    where = taught(teacher=MOE)
    rows = Degrees(
        np.full(4, 16), tp=np.array([1, 2, 4, 1]), pp=np.array([1, 2, 1, 4]), micro_batch=np.array([1, 2, 1, 1])
    )
    step = np.array([0.1, 0.2, 0.3, 0.4])
    times, sizes = distill_time(where, rows, step), teacher_bytes(where, rows)
    for i in range(4):
        assert times[i] == distill_time(where, rows.take(i), step[i])
        assert sizes[i] == teacher_bytes(where, rows.take(i))
