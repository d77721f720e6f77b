"""Laws that every estimate obeys, whatever the plan."""

from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cost.step import StepTime
from planner.estimate import Estimate, estimate, evaluate, units
from planner.layout import layout, stack
from planner.memory.stage import Memory
from planner.precision import PRECISIONS
from planner.setting import Setting
from planner.strategy import Degrees
from tests.properties.strategies import batches, plans


def batched(where: Setting, rows: Degrees) -> Estimate:
    """The plans priced at once; that a search reuses layer costs is held by the tests of the search."""
    seq_len = where.workload.seq_len
    shapes = [layout(where.model, seq_len, int(pp), int(vpp)) for pp, vpp in zip(rows.pp, rows.vpp, strict=True)]
    return evaluate(units(where, rows), stack(shapes, np.arange(len(shapes))), where, rows)


@given(batches())
def test_one_plan_is_priced_as_it_is_in_a_batch(drawn):
    """The scalar and the batched path give the same bits, field by field."""
    where, rows = drawn
    together = batched(where, rows)
    size = np.size(rows.tp)
    for i in range(size):
        alone = estimate(where, rows.take(i))
        for field in fields(StepTime):
            value = np.broadcast_to(getattr(together.step, field.name), (size,))[i]
            assert value == getattr(alone.step, field.name), field.name
        assert np.broadcast_to(together.step.total, (size,))[i] == alone.step.total
        assert np.broadcast_to(together.peak, (size,))[i] == alone.peak


@given(plans())
def test_the_whole_is_the_sum_of_its_parts(drawn):
    """Step time and memory are the sums of their fields, each finite and not negative (but for rounding)."""
    found = estimate(*drawn)
    total = float(found.step.total)
    for tree, kind in ((found.step, StepTime), *((stage, Memory) for stage in found.stages)):
        parts = [float(getattr(tree, field.name)) for field in fields(kind)]
        assert np.all(np.isfinite(parts))
        assert min(parts) >= -1e-12 * total
        assert tree.total == pytest.approx(sum(parts), rel=1e-12)
    assert found.peak == max(stage.total for stage in found.stages)


@given(plans())
def test_no_plan_beats_the_peak(drawn):
    """Model FLOP over the step never exceed the peak of all GPUs."""
    where, degrees = drawn
    peak = where.gpu.peak[PRECISIONS[where.choices.precision].peak]
    flop = where.model.flops_per_token(where.workload.seq_len, causal=True) * where.workload.tokens_per_step
    assert flop / (float(estimate(where, degrees).step.total) * degrees.world * peak) <= 1.0


def with_tier(where: Setting, level: int, **factors: float) -> Setting:
    """The setting with numbers of one tier multiplied."""
    tiers = list(where.tiers)
    tier = tiers[level]
    tiers[level] = replace(tier, **{name: getattr(tier, name) * factor for name, factor in factors.items()})
    return replace(where, cluster=replace(where.cluster, tiers=tuple(tiers)))


def with_gpu(where: Setting, **changes) -> Setting:
    """The setting with other numbers of its GPU."""
    return replace(where, cluster=replace(where.cluster, gpu=replace(where.gpu, **changes)))


@given(plans(), st.integers(0, 5), st.floats(1.01, 16.0))
def test_more_bandwidth_is_never_slower(drawn, level, factor):
    """A faster link on any tier leaves the step no longer."""
    where, degrees = drawn
    faster = with_tier(where, level % len(where.tiers), bandwidth=factor)
    before, after = estimate(where, degrees).step.total, estimate(faster, degrees).step.total
    assert after <= before * (1 + 1e-12)


@given(plans(), st.integers(0, 5), st.sampled_from(("latency", "launch", "fill")), st.floats(1.01, 100.0))
def test_more_latency_is_never_faster(drawn, level, name, factor):
    """Longer hops, launches or pipeline fills on any tier leave the step no shorter."""
    where, degrees = drawn
    slower = with_tier(where, level % len(where.tiers), **{name: factor})
    before, after = estimate(where, degrees).step.total, estimate(slower, degrees).step.total
    assert after >= before * (1 - 1e-12)


@given(plans(), st.floats(1.01, 8.0), st.booleans())
def test_a_faster_gpu_is_never_slower(drawn, factor, memory):
    """More HBM bandwidth, or more peak FLOP/s, leaves the step no longer."""
    where, degrees = drawn
    if memory:
        better = with_gpu(where, hbm_bandwidth=where.gpu.hbm_bandwidth * factor)
    else:
        peaks = {name: peak * factor for name, peak in where.gpu.peak.items()}
        better = with_gpu(where, peak=MappingProxyType(peaks))
    before, after = estimate(where, degrees).step.total, estimate(better, degrees).step.total
    assert after <= before * (1 + 1e-12)


@given(plans(), st.floats(0.01, 100.0))
def test_capacity_changes_no_estimate(drawn, factor):
    """A plan needs the same memory and time whatever the GPU holds, so more capacity never unfits it."""
    where, degrees = drawn
    other = with_gpu(where, hbm_capacity=where.gpu.hbm_capacity * factor)
    one, two = estimate(where, degrees), estimate(other, degrees)
    assert (one.peak, one.step.total) == (two.peak, two.step.total)


@given(plans())
def test_more_zero_needs_no_more_states(drawn):
    """Each level of ZeRO holds no more parameters, gradients and optimizer state than the one below."""
    where, degrees = drawn
    degrees = replace(degrees, replicas=1)
    states = []
    for zero in (0, 1, 2, 3):
        found = estimate(replace(where, choices=replace(where.choices, zero=zero)), degrees)
        states.append([stage.parameters + stage.gradients + stage.optimizer for stage in found.stages])
    assert np.all(np.diff(np.array(states, dtype=float), axis=0) <= 0.0)


@given(plans())
def test_more_recompute_keeps_less_and_works_more(drawn):
    """None, selective, full: activations in flight fall layer by layer, recomputed time rises."""
    where, degrees = drawn
    saved, again = [], []
    for recompute in ("none", "selective", "full"):
        there = replace(where, choices=replace(where.choices, recompute=recompute))
        kinds = units(there, degrees)[: len(where.model.kinds)]
        saved.append([float(kind.memory.saved) for kind in kinds])
        again.append(float(estimate(there, degrees).step.recompute))
    assert np.all(np.diff(np.array(saved), axis=0) <= 0.0)
    assert again[0] == 0.0 <= again[1] <= again[2]
