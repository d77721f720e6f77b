"""The estimate as a whole: one plan, and the plans that its parts are taken for."""

from dataclasses import fields, replace

import numpy as np
import pytest

from planner.cost.step import StepTime, stage_total
from planner.estimate import estimate, take, units
from planner.formula import explaining
from planner.layout import stage_counts
from planner.memory.stage import common, stage_memory
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import DENSE, KIMI_K2, LATENT, MOE, setting


def test_kimi_k2_on_a_superpod_fits_and_is_plausible():
    """A plan like the published ones (pp 16, ep 16, ZeRO-1) fits 80 GB with recompute and reaches a sane MFU."""
    where = setting(KIMI_K2, 10240, Choices(recompute="full"), Workload(4096, 10240, 15.5e12))
    degrees = Degrees(10240, pp=16, ep=16)
    found = estimate(where, degrees)
    flop = where.model.flops_per_token(4096, causal=True) * where.workload.tokens_per_step
    share = flop / (found.step.total * degrees.world * where.gpu.peak["bf16"])
    assert 0.1 < share < 0.6
    assert found.peak < where.gpu.hbm_capacity


@pytest.mark.parametrize("shape", [DENSE, MOE, LATENT], ids=lambda shape: shape.name)
def test_explaining_changes_nothing(shape):
    """The explained plan has the bits of the plain one, and its tree reaches down to kernels."""
    where, degrees = setting(shape), Degrees(16, tp=2, pp=2)
    plain = estimate(where, degrees)
    with explaining() as root:
        told = estimate(where, degrees)
    assert [getattr(told.step, f.name) for f in fields(StepTime)] == [
        getattr(plain.step, f.name) for f in fields(StepTime)
    ]
    seen, stack = set(), list(root.calls)
    while stack:
        call = stack.pop()
        seen.add(call.formula.name)
        stack += call.calls
    assert {"cost.step.step_time", "cost.kernels.matmul", "memory.stage.stage_memory"} <= seen


def test_more_micro_batches_amortise_the_bubble():
    """With four times the batch the bubble is the same time, so a smaller share."""
    small, large = (
        estimate(setting(DENSE, workload=Workload(2048, n, 1e9)), Degrees(16, pp=4)).step for n in (64, 256)
    )
    assert large.bubble == pytest.approx(small.bubble)
    assert large.bubble / large.total < small.bubble / small.total


def test_taking_picks_every_array_of_a_tree():
    """`take` gives the same nested parts at other positions, and leaves numbers alone."""
    where = setting(MOE)
    tp = np.array([1, 2, 4])
    batch = units(where, Degrees(np.full(3, 16), tp=tp))
    picked = take(batch, np.array([2, 0]))
    assert np.array_equal(picked[0].cost.time.forward, np.asarray(batch[0].cost.time.forward)[[2, 0]])
    assert take((1.5, "x"), np.array([0])) == (1.5, "x")


def test_fp8_matrix_units_make_a_large_layer_faster():
    """The low-precision format speeds up the layers; router and output matrix stay as they are."""
    where = replace(setting(KIMI_K2, 1024, workload=Workload(4096, 1024, 1e12)), clock=1.0)
    low = replace(where, choices=Choices(precision="fp8"))
    degrees = Degrees(1024, ep=64)
    kinds = len(where.model.kinds)
    for kind, (slow, fast) in enumerate(zip(units(where, degrees), units(low, degrees), strict=True)):
        if kind < kinds:
            assert fast.cost.time.forward < slow.cost.time.forward
        else:
            assert fast.cost.time.forward == slow.cost.time.forward


@pytest.mark.parametrize(("schedule", "vpp"), [("1f1b", 1), ("gpipe", 1), ("interleaved", 2), ("zb-h1", 1)])
@pytest.mark.parametrize("shape", [DENSE, MOE, LATENT, KIMI_K2], ids=lambda shape: shape.name)
def test_no_stage_exceeds_the_peak(shape, schedule, vpp):
    """The shapes of the layout give the peak and the pace of all stages, each priced at its own place."""
    where = setting(shape, 64, Choices(schedule=schedule))
    for pp in (2, 4) if shape is not KIMI_K2 else (8, 16):
        degrees = Degrees(64, pp=pp, vpp=vpp)
        parts = units(where, degrees)
        bytes_of = tuple(part.memory for part in parts)
        stages = stage_counts(where.model, 2048, pp, vpp)
        shared = common(bytes_of, where, degrees)
        peaks = [
            stage_memory(bytes_of, counts, rank, shared, where, degrees).total for rank, counts in enumerate(stages)
        ]
        found = estimate(where, degrees)
        assert found.peak == max(peaks)
        times = np.array(stages) @ np.array([float(part.cost.time.total) for part in parts])
        pace = max(stage_total(tuple(part.cost for part in parts), counts) for counts in found.layout.counts)
        assert pace == pytest.approx(times.max(), rel=1e-12)
