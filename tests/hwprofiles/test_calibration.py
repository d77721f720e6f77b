"""Calibrations: read, laid over a cluster, written and read back."""

import dataclasses

import pytest

from hwprofiles import calibration, load
from hwprofiles.faults import InputError

TEXT = """
name = "lab"
date = "2026-11-24"

[machine]
gpu = "h100-sxm"
driver = "570"

[residuals]
matmul = 0.031

[gpu]
hbm_efficiency = { value = 0.9, source = "measured: copy" }
matmul.bf16.efficiency = { value = 0.7, source = "measured: sweep" }
price = { value = "2 USD/h", source = "stated: contract" }

[node]
scale_up_launch = { value = "9 us", source = "measured: all-reduce" }

[fabric]
efficiency = { value = 0.8, source = "measured: all-reduce" }
parameters.leaf_oversubscription = { value = 2, source = "stated: half of the cables" }
"""


@pytest.fixture
def lab(tmp_path):
    """TEXT, loaded."""
    path = tmp_path / "lab.toml"
    path.write_text(TEXT)
    return calibration.load(path)


def test_a_calibration_replaces_what_it_measured_and_nothing_else(lab):
    """Overridden numbers, rebuilt tiers, sources that name the calibration; the rest is the profile's."""
    before = load.cluster("h100-superpod", 512)
    after = calibration.overlay(before, lab)
    assert after.gpu.hbm_efficiency == 0.9
    assert after.gpu.matmul["bf16"].efficiency == 0.7
    assert after.gpu.matmul["bf16"].k_half == before.gpu.matmul["bf16"].k_half
    assert after.gpu.matmul["fp8"] == before.gpu.matmul["fp8"]
    assert after.tiers[0].launch == pytest.approx(9e-6)
    assert after.tiers[1].efficiency == 0.8
    assert after.tiers[2].bandwidth == pytest.approx(before.tiers[2].bandwidth / 2)
    assert after.price == pytest.approx(2 / 3600)
    assert after.gpu.sources["hbm_efficiency"] == "measured: copy (calibration lab, 2026-11-24)"
    assert before.gpu.hbm_efficiency == load.gpu("h100").hbm_efficiency


def test_a_calibration_is_read_back_as_it_was_written(lab, tmp_path):
    """save, then load, gives an equal calibration; its fingerprint and residuals survive."""
    path = tmp_path / "copy.toml"
    calibration.save(lab, path)
    assert calibration.load(path) == lab
    assert lab.machine["driver"] == "570"
    assert lab.residuals == {"matmul": 0.031}
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_the_mechanisms_of_a_stack_are_kept_as_they_are(lab, tmp_path):
    """Their names mean nothing here; they come back as written, with the stack that they belong to."""
    measured = dataclasses.replace(
        lab, stack_name="torch-eager", stack={"kernel_gap": 1.25e-5, "scatter_by_reduce": 1.0}
    )
    calibration.save(measured, tmp_path / "copy.toml")
    assert calibration.load(tmp_path / "copy.toml") == measured
    assert (lab.stack_name, lab.stack) == ("", {})


def test_a_calibration_of_today():
    """Name and date say of what and when; the GPU is in the fingerprint."""
    made = calibration.of(load.cluster("h100-node"), {}, {"matmul": 0.1}, {"driver": "570"})
    assert made.machine == {"gpu": "h100-sxm", "driver": "570"}
    assert made.name == f"h100-node-{made.date}"


def test_a_calibration_of_another_gpu_is_refused(lab):
    """Numbers measured on an H100 say nothing of an A100."""
    with pytest.raises(InputError, match="a100-sxm-80gb"):
        calibration.overlay(load.cluster("a100-superpod"), lab)


def test_what_the_cluster_lacks_is_not_invented(tmp_path):
    """A curve for a precision that the GPU hasn't is refused, with every other misfit."""
    path = tmp_path / "c.toml"
    path.write_text(
        'name = "x"\ndate = "d"\n[gpu.matmul.fp8]\nefficiency = { value = 0.5, source = "measured: x" }\n'
        '[fabric.parameters]\nplanes = { value = 4, source = "stated: x" }'
    )
    with pytest.raises(InputError) as caught:
        calibration.overlay(load.cluster("a100-superpod"), calibration.load(path))
    assert len(caught.value.faults) == 2


def test_every_fault_of_a_calibration_comes_at_once(tmp_path):
    """Wrong residuals, words, keys and shares in one refusal."""
    path = tmp_path / "c.toml"
    path.write_text(
        'name = "x"\n[residuals]\na = -1\n[machine]\nb = 3\n'
        '[gpu]\nhbm_eficiency = { value = 0.5, source = "measured: x" }\n'
        'hbm_efficiency = { value = 1.5, source = "measured: x" }'
    )
    with pytest.raises(InputError) as caught:
        calibration.load(path)
    text = str(caught.value)
    for word in ("residuals.a", "machine", "date", "did you mean 'hbm_efficiency'", "at most 1"):
        assert word in text
