"""Every fit inverts the planner's own formula: planted parameters come back, with noise and without."""

from dataclasses import replace

import numpy as np
import pytest

from executor.fit import kernels as fits
from executor.fit.solve import Parameter, fit
from executor.measure.measurement import Measurement
from hwprofiles import load
from hwprofiles.curve import AttentionCurve, GroupedCurve, MatmulCurve
from planner.cost import kernels
from planner.errors import InputError

GPU = load.gpu("h100-sxm")
SHAPES = [(m, n, k) for m in (256, 1024, 4096) for n in (512, 4096) for k in (256, 1024, 8192)]
MATMUL = MatmulCurve(efficiency=0.66, k_half=210.0, mn_half=45.0, launch=5e-6)
GROUPED = GroupedCurve(efficiency=0.71, wave_half=0.9, launch=3e-5)
ATTENTION = AttentionCurve(efficiency=0.6, seq_half=700.0, flop_per_exp=GPU.attention.flop_per_exp, backward_rate=0.7)


def row(kind, seconds, **sizes):
    """A measurement in bf16."""
    return Measurement(kind, sizes, "bf16", float(seconds))


def matmuls(noise=0.0):
    """Rows of planted matrix multiplies, with log-normal noise."""
    rng = np.random.default_rng(0)
    rows = []
    for m, n, k in SHAPES:
        moved = 2.0 * (m * k + k * n + m * n)
        exact = kernels.matmul(m, n, k, moved, GPU.peak["bf16"], MATMUL, GPU)
        rows.append(row("matmul", exact * np.exp(noise * rng.standard_normal()), rows=m, columns=n, inner=k))
    return rows


def test_matmul_constants_come_back():
    """Without noise the planted curve is found, its weak edge term within 20 %, and nothing is left over."""
    found = fits.matmul(matmuls(), "bf16", GPU)
    assert found.residual < 0.01
    for name, value in found.values.items():
        assert value == pytest.approx(getattr(MATMUL, name), rel=0.2), name


def test_noise_moves_the_efficiency_less_than_itself():
    """With 5 % noise the efficiency is within 3 %, and the residual says 5 %."""
    found = fits.matmul(matmuls(noise=0.05), "bf16", GPU)
    assert found.values["efficiency"] == pytest.approx(MATMUL.efficiency, rel=0.03)
    assert 0.02 < found.residual < 0.06
    assert found.worst > found.residual


def test_one_broken_row_does_not_lead_the_fit():
    """A row that is ten times too slow pulls the efficiency by less than 3 %."""
    rows = matmuls()
    rows[7] = replace(rows[7], seconds=10 * rows[7].seconds)
    assert fits.matmul(rows, "bf16", GPU).values["efficiency"] == pytest.approx(MATMUL.efficiency, rel=0.03)


def test_grouped_constants_come_back():
    """Efficiency, waves and launch of the experts' kernel."""
    rows = []
    for g, m, n, k in [(g, m, n, k) for g in (4, 32) for m in (64, 512, 2048) for n, k in ((2048, 1024), (4096, 7168))]:
        moved = 2.0 * g * (m * k + k * n + m * n)
        exact = kernels.grouped_matmul(g, m, n, k, moved, GPU.peak["bf16"], GROUPED, GPU)
        rows.append(row("grouped_matmul", exact, groups=g, rows=m, columns=n, inner=k))
    found = fits.grouped(rows, "bf16", GPU)
    assert found.residual < 0.01
    for name, value in found.values.items():
        assert value == pytest.approx(getattr(GROUPED, name), rel=0.05), name


def test_attention_constants_come_back_from_both_passes():
    """Efficiency, saturation and the backward rate; the cost of an exponential is the profile's."""
    rows = []
    for b, h, s, d in [(b, 16, s, d) for b in (1, 4) for s in (512, 2048, 8192) for d in (64, 128)]:
        rate = kernels.attention_rate(s, d, GPU.peak["bf16"], ATTENTION)
        forward = 2.0 * b * h * s * s * d / rate
        launch = GPU.matmul["bf16"].launch
        sizes = {"batch": b, "heads": h, "seq_len": s, "head_dim": d}
        rows.append(row("attention", launch + forward, **sizes))
        behind = kernels.BACKWARD_FLOP * forward / ATTENTION.backward_rate
        rows.append(row("attention_backward", launch + behind, **sizes))
    found = fits.attention(rows, "bf16", GPU)
    assert found.residual < 0.01
    for name, value in found.values.items():
        assert value == pytest.approx(getattr(ATTENTION, name), rel=0.05), name


def test_the_bandwidth_of_copies_comes_back():
    """Bytes over seconds, with a launch."""
    rows = [row("copy", 4e-6 + size / 2.5e12, bytes=size) for size in (1e6, 1e7, 1e8, 1e9)]
    found = fits.bandwidth(rows, GPU)
    assert found.values["bandwidth"] == pytest.approx(2.5e12, rel=0.01)
    assert found.values["launch"] == pytest.approx(4e-6, rel=0.05)


def test_no_rows_are_refused():
    """Nothing is fitted to nothing."""
    with pytest.raises(InputError, match="no rows"):
        fits.matmul([], "bf16", GPU)


def test_a_parameter_without_evidence_stays_at_its_start():
    """The prior holds what the rows don't show."""
    found = fit(
        {"seen": Parameter(1.0, 0.1, 10.0), "unseen": Parameter(3.0, 0.1, 10.0)}, lambda v: [v["seen"]] * 5, [2.0] * 5
    )
    assert found.values["seen"] == pytest.approx(2.0, rel=0.01)
    assert found.values["unseen"] == pytest.approx(3.0)
    assert found.words("rows").startswith("fitted: 5 rows, mean error ")
