"""The published runs of this folder, predicted: no worse than the ratchet, and nothing measured leaks in."""

import tomllib
from pathlib import Path

import pytest

from planner.validate.read import read
from planner.validate.score import predict, validate

HERE = Path(__file__).parent
SLACK = 0.002  # another platform's last bits may move a percentile


@pytest.fixture(scope="module")
def result():
    """All rows, predicted."""
    return validate(HERE / "runs.yaml")


@pytest.fixture(scope="module")
def ratchet():
    """The errors that must not be exceeded."""
    return tomllib.loads((HERE / "ratchet.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["time", "memory"])
def test_errors_only_shrink(result, ratchet, kind):
    """Accuracy is no worse than the ratchet."""
    for name, most in ratchet[kind].items():
        assert result["summary"][kind][name] <= most + SLACK, f"{kind} {name} got worse: find out why, don't loosen it"


def test_no_row_is_lost(result, ratchet):
    """Each row is predicted or refused with a reason, and refusals don't grow."""
    assert len(result["rows"]) == len(read(HERE / "runs.yaml"))
    assert all(row["reason"] for row in result["rows"] if row["status"] == "unsupported")
    assert result["summary"]["unsupported"] <= ratchet["rows"]["unsupported"]


@pytest.mark.parametrize("kind", ["time", "memory"])
def test_ratchet_is_tight(result, ratchet, kind):
    """A better model tightens the ratchet in the same change: it stays within a point of what is reached."""
    for name, most in ratchet[kind].items():
        assert most - result["summary"][kind][name] < 0.01, f"tighten {kind} {name} in ratchet.toml"


def test_full_gpus_are_told_as_full(result):
    """A run that measured more than 98 % of its 80 GB is predicted within a tenth of it, and there is such a run."""
    large = [row for row in result["rows"] if "80GB" in row["gpu"] and row["measured_peak_bytes"]]
    full = [row for row in large if row["measured_peak_bytes"] > 0.98 * 80 * 2**30]
    assert full
    assert all(abs(row["memory_error"]) < 0.1 for row in full)


def test_intervals_cover(result):
    """The 90 % intervals hold most of the measured times and always hold the estimate."""
    assert 0.75 <= result["summary"]["time"]["coverage_90"] <= 0.98
    for row in result["rows"]:
        assert row["interval_s"][0] <= row["predicted_step_s"] <= row["interval_s"][1]


@pytest.mark.parametrize(
    "other",
    [
        {"measured": {"step_time_s": 1e-3, "peak_mem_gib": 1.0}, "derived": {"step_time_s": 7.0, "edp": 3}},
        {"measured": {}, "derived": None},
        {"measured": None},
    ],
    ids=["other", "empty", "none"],
)
def test_nothing_measured_reaches_the_prediction(result, other):
    """Other or missing measured and derived values leave every prediction as it is, bit for bit."""
    keys = ("status", "reason", "predicted_step_s", "predicted_peak_bytes", "interval_s")
    for row, found in zip(read(HERE / "runs.yaml"), result["rows"], strict=True):
        again = predict({**row, **other})
        assert [again[key] for key in keys] == [found[key] for key in keys], row["id"]


def test_korthikanti_is_close(result):
    """Korthikanti 2022, Table 5: each row within 8 %."""
    rows = [row for row in result["rows"] if row["source"].startswith("Korthikanti")]
    assert len(rows) >= 4
    assert all(abs(row["error"]) < 0.08 for row in rows)
