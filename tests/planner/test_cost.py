"""Work is conserved over ranks, and each part of the step behaves as its law says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost import kernels
from planner.cost.layer import core_time, layer_time, part_time
from planner.cost.overlap import exposed
from planner.estimate import estimate
from planner.layers.base import Core, Linear
from planner.layout import layer_kinds, stage_counts
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import DENSE, KIMI_K2, LATENT, MOE, TIED, model, setting

SEQ = 4096
FOLDS = [
    {},
    {"tp": 2},
    {"tp": 4, "cp": 2},
    {"ep": 4},
    {"tp": 2, "ep": 4, "etp": 2},
    {"tp": 8, "ep": 8, "pp": 2},
    {"tp": 2, "cp": 2, "ep": 2, "etp": 2, "pp": 3},
]


def counted(monkeypatch, layer, where, degrees):
    """The matrix-multiply FLOP that one micro-batch through `layer` asks the kernels for on one rank."""
    flop = []

    def dense(rows, columns, inner, *rest):
        flop.append(2.0 * rows * columns * inner)
        return 0.0

    def grouped(groups, rows, columns, inner, *rest):
        flop.append(2.0 * groups * rows * columns * inner)
        return 0.0

    with monkeypatch.context() as patched:
        patched.setattr(kernels, "matmul", dense)
        patched.setattr(kernels, "grouped_matmul", grouped)
        for part in layer.parts:
            if isinstance(part, Linear):
                part_time(part, where, degrees)
    return sum(flop)


@pytest.mark.parametrize("fold", FOLDS, ids=str)
@pytest.mark.parametrize("shape", [DENSE, MOE, LATENT, TIED, KIMI_K2], ids=lambda shape: shape.name)
def test_all_ranks_together_do_the_models_work(monkeypatch, shape, fold):
    """Matrix-multiply FLOP asked of the kernels, over ranks and micro-batches, are the model's whatever the fold."""
    world = 48
    where = setting(shape, world, workload=Workload(SEQ, 96, 1e12))
    degrees = Degrees(world, **fold)
    whole = where.model
    per_kind = [counted(monkeypatch, kind, where, degrees) for kind in layer_kinds(whole)]
    if whole.mtp is not None:
        per_kind[-1] += per_kind[len(whole.kinds) + 1]  # MTP runs the output matrix again
    stages = np.array(stage_counts(whole, SEQ, int(degrees.pp), 1))
    micro_batches = where.workload.global_batch // degrees.dp
    ranks = world // degrees.pp
    total = float((stages @ np.array(per_kind)).sum()) * ranks * micro_batches
    linear = sum(layer.linear_flops() for layer in whole.stack())
    if whole.mtp is not None:
        linear += whole.mtp_layers * (whole.mtp.linear_flops() + whole.head.linear_flops())
    assert total == pytest.approx(3 * linear * where.workload.tokens_per_step, rel=1e-12)


@pytest.mark.parametrize("fold", FOLDS, ids=str)
def test_all_ranks_together_do_the_attention(fold):
    """Time of the attention product at its rate, over all ranks, is the model's causal FLOP."""
    where = setting(DENSE, 48, workload=Workload(SEQ, 96, 1e12))
    gpu = where.gpu
    no_launch = {name: replace(curve, launch=0.0) for name, curve in gpu.matmul.items()}
    where = replace(where, cluster=replace(where.cluster, gpu=replace(gpu, matmul=no_launch)))
    (core,) = (part for part in model(DENSE).kinds[0].parts if isinstance(part, Core))
    degrees = Degrees(48, **fold)
    ahead, _ = core_time(core, where, degrees)
    peak = gpu.peak["bf16"] * where.sustained * where.stack.attention_rate
    rate = kernels.attention_rate(SEQ, core.qk_dim, peak, gpu.attention)
    ranks = 48 // degrees.pp
    flop = ahead * rate * ranks * (where.workload.global_batch // degrees.dp)
    expected = model(DENSE).kinds[0].attention_flops(SEQ, causal=True) * where.workload.tokens_per_step
    assert flop == pytest.approx(expected, rel=1e-12)


@given(st.floats(0.0, 10.0), st.floats(0.0, 10.0), st.floats(0.0, 1.0))
def test_what_hides_is_bounded_by_both(traffic, window, share):
    """Exposed time lies between what can't hide and all of it."""
    found = exposed(traffic, window, share)
    assert traffic * (1 - share) - 1e-9 <= found <= traffic
    assert found >= traffic - window - 1e-9


@given(st.integers(1, 15), st.integers(1, 15), st.integers(1, 15))
def test_no_kernel_beats_its_roofline(rows, columns, inner):
    """A matrix multiply takes at least its launch, its arithmetic at the peak and its traffic at the HBM rate."""
    gpu = setting(DENSE).gpu
    m, n, k = 2.0**rows, 2.0**columns, 2.0**inner
    moved = 2.0 * (m * k + k * n + m * n)
    peak = gpu.peak["bf16"]
    for time in (
        kernels.matmul(m, n, k, moved, peak, gpu.matmul["bf16"], gpu),
        kernels.grouped_matmul(8.0, m, n, k, 8 * moved, peak, gpu.grouped, gpu),
    ):
        assert time >= 2 * m * n * k / peak
        assert time >= moved / gpu.hbm_bandwidth


def test_tensor_traffic_is_two_gathers_and_two_scatters_a_layer():
    """A dense layer passes its hidden state four times each way: no traffic at tp = 1, and some at tp = 2."""
    where = setting(DENSE)
    (kind,) = where.model.kinds
    assert layer_time(kind, where, Degrees(16)).tensor == 0.0
    assert layer_time(kind, where, Degrees(16, tp=2)).tensor > 0.0


@pytest.mark.parametrize(("field", "axis"), [("tensor", "tp"), ("context", "cp"), ("expert", "ep"), ("pipeline", "pp")])
def test_an_axis_of_one_has_no_traffic_of_its_own(field, axis):
    """Each kind of traffic appears with its axis."""
    where = setting(MOE, 16, workload=Workload(SEQ, 64, 1e9))
    assert getattr(estimate(where, Degrees(16)).step, field) == 0.0
    assert getattr(estimate(where, Degrees(16, **{axis: 2})).step, field) > 0.0


def test_one_stage_has_no_bubble_and_no_imbalance():
    """Without a pipeline nothing waits."""
    step = estimate(setting(DENSE), Degrees(16)).step
    assert (step.bubble, step.pipeline) == (0.0, 0.0)
    assert step.imbalance == pytest.approx(0.0, abs=1e-12 * step.total)


def test_the_slowest_stage_sets_the_pace():
    """Work of the mean stage and imbalance together are the slowest stage's time over all micro-batches."""
    where = setting(MOE, 16)
    degrees = Degrees(16, pp=4)
    step = estimate(where, degrees).step
    times = [layer_time(kind, where, degrees).total for kind in layer_kinds(where.model)]
    stages = np.array(stage_counts(where.model, 2048, 4, 1)) @ np.array(times)
    micro_batches = where.workload.global_batch // degrees.dp
    busy = step.compute + step.launch + step.recompute + step.tensor + step.context + step.expert + step.imbalance
    assert busy == pytest.approx(micro_batches * stages.max())


def test_interleaving_divides_the_bubble():
    """vpp chunks a stage leave 1 / vpp of the bubble, for more sends."""
    shape = replace(DENSE, layers=8)
    plain = estimate(setting(shape, 16), Degrees(16, pp=4)).step
    chunked = estimate(setting(shape, 16, Choices(schedule="interleaved")), Degrees(16, pp=4, vpp=2)).step
    assert chunked.bubble == pytest.approx(plain.bubble / 2)
    assert chunked.pipeline > plain.pipeline


def test_zero_three_gathers_for_every_micro_batch():
    """ZeRO-3 traffic grows with the micro-batches, ZeRO-1 traffic does not."""
    few, many = Workload(SEQ, 16, 1e9), Workload(SEQ, 64, 1e9)
    data = {
        (zero, work.global_batch): float(estimate(setting(DENSE, 16, Choices(zero=zero), work), Degrees(16)).step.data)
        for zero in (1, 3)
        for work in (few, many)
    }
    assert data[3, 64] == pytest.approx(4 * data[3, 16])
    assert data[1, 64] == pytest.approx(data[1, 16])


def test_full_recompute_runs_the_layers_forward_once_more():
    """The recomputed time is the forward time of every kind of layer."""
    where = setting(MOE, choices=Choices(recompute="full"))
    times = [layer_time(kind, where, Degrees(16)) for kind in where.model.kinds]
    assert [time.recompute for time in times] == pytest.approx([time.forward for time in times])
    assert min(time.recompute for time in times) > 0.0
