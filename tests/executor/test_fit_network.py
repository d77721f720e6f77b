"""Tiers of a network from collectives, and the numbers of a calibration from rows of every kind."""

from dataclasses import replace

import pytest

from executor.fit import network
from executor.fit.machine import hardware
from executor.measure.measurement import COLLECTIVES, Measurement
from hwprofiles import calibration, load, topology
from planner.errors import InputError

CLUSTER = load.cluster("h100-superpod", 64)
SIZES = (2**12, 2**16, 2**20, 2**24, 2**28)


def rows_on(tiers, ranks, *, by_reduce=False):
    """What the planner's formulas say each collective takes on `tiers`."""
    found = []
    for kind in COLLECTIVES:
        for size in SIZES:
            blank = Measurement(kind, {"bytes": size, "ranks": ranks, "stride": 1}, "bf16", 1.0, clock="device")
            found.append(replace(blank, seconds=network.predict(blank, tiers, scatter_by_reduce=by_reduce)))
    return found


@pytest.fixture(scope="module")
def node():
    """A node that is unlike its profile."""
    return replace(
        CLUSTER.node,
        scale_up_bandwidth=300e9,
        scale_up_efficiency=1.0,
        scale_up_latency=2e-6,
        scale_up_launch=9e-6,
        scale_up_fill=2e6,
    )


def inside(node, *, by_reduce=False):
    """Rows of groups that stay in one node."""
    tiers = {ranks: topology.tiers(node, CLUSTER.fabric, ranks) for ranks in (2, 4, 8)}
    return [row for ranks, laid in tiers.items() for row in rows_on(laid, ranks, by_reduce=by_reduce)]


def test_the_node_comes_back(node):
    """Bandwidth, latency, launch and fill of the scale-up domain."""
    found = network.fit_node(inside(node), CLUSTER.node, CLUSTER.fabric)
    assert found.scatter_by_reduce is False
    assert found.fit.residual < 0.02
    assert found.fit.values["bandwidth"] == pytest.approx(300e9, rel=0.03)
    assert found.fit.values["latency"] == pytest.approx(2e-6, rel=0.1)
    assert found.fit.values["launch"] == pytest.approx(9e-6, rel=0.1)


def test_a_library_that_scatters_by_reducing_is_told(node):
    """gloo's reduce-scatter takes as long as an all-reduce: the rows show it."""
    assert network.fit_node(inside(node, by_reduce=True), CLUSTER.node, CLUSTER.fabric).scatter_by_reduce is True


def test_the_fabric_comes_back(node):
    """Efficiency, latency and launch of what lies beyond the node, once the node is known."""
    fabric = replace(CLUSTER.fabric, efficiency=0.6, latency=2e-5, launch=5e-5)
    rows = [row for ranks in (16, 32) for row in rows_on(topology.tiers(node, fabric, ranks), ranks)]
    found = network.fit_fabric(rows, node, CLUSTER.fabric)
    assert found.fit.residual < 0.03
    assert found.fit.values["efficiency"] == pytest.approx(0.6, rel=0.05)


def test_the_numbers_of_a_calibration_predict_what_they_were_fitted_on(node, tmp_path):
    """Fit, write, read, overlay: the cluster then gives the measured times; sources name the fit."""
    rows = [*inside(node), Measurement("copy", {"bytes": 1e9}, "bf16", 1e9 / 2e12), copy(2e9), copy(4e9)]
    found = hardware(rows, CLUSTER)
    made = calibration.of(CLUSTER, found.numbers, found.residuals, {"driver": "570"})
    calibration.save(made, tmp_path / "lab.toml")
    read = calibration.load(tmp_path / "lab.toml")
    assert read == made
    after = calibration.overlay(CLUSTER, read)
    assert after.gpu.hbm_efficiency * after.gpu.hbm_bandwidth == pytest.approx(2e12, rel=0.01)
    assert after.node.sources["scale_up_latency"].startswith("fitted: 75 collectives of 2, 4, 8 ranks, mean error")
    for row in rows_on(topology.tiers(node, CLUSTER.fabric, 8), 8):
        assert network.predict(row, after.tiers[:1], scatter_by_reduce=False) == pytest.approx(row.seconds, rel=0.1)
    assert found.scatter_by_reduce is False
    assert set(found.residuals) == {"copy", "network.scale_up"}


def copy(size):
    """A copy at 2 TB/s."""
    return Measurement("copy", {"bytes": size}, "bf16", size / 2e12)


def test_too_few_rows_are_named_and_not_fitted():
    """One copy fits no law, and says so."""
    found = hardware([copy(1e9)], CLUSTER)
    assert found.numbers == {}
    assert found.scatter_by_reduce is None
    assert found.left_out == ("copy: 1 rows, at least 2 are needed",)


def test_on_a_cpu_peak_and_cores_are_measured():
    """The maker of a CPU states no peak: the fastest multiply is it, and no efficiency is above 1."""
    here = load.cluster("cpu-loopback", 2)
    shapes = [(m, n, k) for m in (64, 512) for n in (64, 512) for k in (64, 512)]
    rows = [
        Measurement("matmul", {"rows": m, "columns": n, "inner": k}, "fp32", 2e-6 + 2.0 * m * n * k / 1e11, clock="cpu")
        for m, n, k in shapes
    ]
    numbers = hardware(rows, here, cores=8).numbers
    assert numbers["gpu.peak.fp32"].value == pytest.approx(2 * 512**3 / rows[-1].seconds, rel=1e-4)
    assert numbers["gpu.matmul.fp32.efficiency"].value <= 1.0
    assert {numbers[f"node.{key}"].value for key in ("gpus", "scale_up_domain", "nics")} == {8}


def test_collectives_are_not_fitted_to_nothing():
    """A fit of a node needs rows."""
    with pytest.raises(InputError, match="no rows"):
        network.fit_node([], CLUSTER.node, CLUSTER.fabric)
