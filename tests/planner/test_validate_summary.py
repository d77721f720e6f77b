"""The summary of a validation: parts and sets of rows, ranking of layouts, slopes over GPUs."""

import math
import sys

import pytest

from planner.commands.output import progress
from planner.commands.validate_sheets import dominant, sheets
from planner.plan import Plan
from planner.validate import facts
from planner.validate.ranking import FEWEST, ranking
from planner.validate.scaling import scaling
from planner.validate.score import predict, selected, validate
from planner.validate.summary import LARGEST, band, summary
from planner.validate.translate import translate
from tests.planner.test_validate import RUN, changed


def row(measured=10.0, predicted=10.0, **fields):
    """A row of the result with the given times [s]; its interval is 10 % to both sides."""
    made = {
        "id": "made-up", "source": "Zephyr et al.", "gpu": "Q96", "model": "zephyr", "gpus": 64, "seq_len": 4096,
        "sets": [], "scaling_group": None, "kind": "dense", "precision": "bf16", "regime": "hopper-dense",
        "layout": "tp8 mbs1", "ranking_group": "zephyr on 64 Q96", "global_batch": 128, "tokens_per_step": 128 * 4096,
        "time": {"compute": 0.7 * predicted, "bubble": 0.2 * predicted, "data": 0.1 * predicted},
        "status": "ok", "reason": None, "measured_step_s": measured, "predicted_step_s": predicted,
        "interval_s": [0.9 * predicted, 1.1 * predicted], "error": predicted / measured - 1.0,
        "measured_peak_bytes": None, "predicted_peak_bytes": 1e9, "memory_error": None,
    }  # fmt: skip
    return {**made, **fields}


def refused(**fields):
    """A row that is not predicted."""
    kept = ("id", "source", "gpu", "model", "gpus", "seq_len", "sets", "scaling_group")
    made = {key: value if key in kept else None for key, value in row().items()}
    return {**made, "status": "unsupported", "reason": "not stated", "measured_step_s": 10.0, **fields}


def layouts(measured, predicted, **fields):
    """One row for each layout of a group."""
    pairs = enumerate(zip(measured, predicted, strict=True))
    return [row(m, p, id=f"layout-{i}", layout=f"tp{i}", **fields) for i, (m, p) in pairs]


def test_rows_are_counted_by_what_they_have_in_common():
    """Each part holds the errors of its rows alone; a refused row is in no part of predicted rows."""
    rows = [
        row(10.0, 11.0, kind="moe", precision="fp8", gpus=8, gpu="Q80"),
        row(10.0, 8.0, gpus=4096),
        row(10.0, 10.5, gpus=4096),
        refused(gpus=None),
    ]
    found = summary(rows)
    assert found["by_kind"]["moe"]["median_abs_error"] == pytest.approx(0.1)
    assert {name: part["n"] for name, part in found["by_kind"].items()} == {"dense": 2, "moe": 1}
    assert {name: part["n"] for name, part in found["by_precision"].items()} == {"bf16": 2, "fp8": 1}
    assert list(found["by_scale"]) == ["1-8", LARGEST]
    assert found["by_scale"][LARGEST]["mean_abs_error"] == pytest.approx(0.125)
    assert found["by_gpu"]["Q80"]["coverage_90"] == 1.0
    assert found["unsupported"] == 1
    assert found["time"]["n"] == 3


@pytest.mark.parametrize(
    ("gpus", "name"), [(1, "1-8"), (8, "1-8"), (9, "9-64"), (512, "65-512"), (2048, "513-2048"), (2049, LARGEST)]
)
def test_bands_of_sizes_end_where_they_say(gpus, name):
    """A band holds the numbers of GPUs that its name names."""
    assert band(row(gpus=gpus)) == name


def test_sets_that_rows_name_are_summarised():
    """A set counts its rows, its mixtures, its memory and its refusals."""
    rows = [
        row(10.0, 12.0, sets=["relaxed_set", "trust_A"], kind="moe"),
        row(10.0, 11.0, sets=["relaxed_set"], memory_error=-0.05),
        refused(sets=["relaxed_set"]),
        row(10.0, 30.0),
    ]
    found = summary(rows)["sets"]
    assert set(found) == {"relaxed_set", "trust_A"}
    relaxed = found["relaxed_set"]
    assert (relaxed["rows"], relaxed["unsupported"]) == (3, 1)
    assert relaxed["time"]["mean_abs_error"] == pytest.approx(0.15)
    assert relaxed["mixtures"]["n"] == 1
    assert relaxed["memory"]["median_abs_error"] == pytest.approx(0.05)


def test_a_row_says_which_sets_it_is_in():
    """The fields of the file become names of sets; what is not true is no member."""
    found = facts.stated({**RUN, "relaxed_set": True, "core_set": False, "trust": "A"})["sets"]
    assert found == ["relaxed_set", "trust_A"]
    assert facts.stated(RUN)["sets"] == []


def test_the_measured_order_has_tau_one_and_no_regret():
    """A monotone prediction ranks perfectly, however large its errors."""
    found = ranking(layouts([10, 11, 12, 13, 14], [30, 31, 32, 33, 34]))
    assert found["mean_tau"] == pytest.approx(1.0)
    assert found["mean_regret"] == 0.0
    assert found["pairs"] == {"n": 10, "in_order": 1.0}


def test_the_reverse_order_has_tau_minus_one_and_its_regret():
    """The slowest layout is chosen: regret is its time over the fastest, minus 1."""
    found = ranking(layouts([10, 11, 12, 13, 14], [34, 33, 32, 31, 30]))
    assert found["mean_tau"] == pytest.approx(-1.0)
    assert found["mean_regret"] == pytest.approx(0.4)
    assert found["groups"][0]["chosen"] == "tp4"
    assert found["groups"][0]["best"] == "tp0"


def test_small_groups_count_pairs_only():
    """A group below the fewest layouts has no tau; its pairs are counted, and those nearly equal are not clear."""
    found = ranking(layouts([10.0, 10.1, 12.0], [10.0, 9.0, 11.0]))
    assert found["n"] == 0
    assert found["mean_tau"] is None
    assert found["pairs"] == {"n": 3, "in_order": pytest.approx(2 / 3)}
    assert found["clear_pairs"] == {"n": 2, "in_order": 1.0}


def test_a_layout_measured_twice_counts_once():
    """Repeats of a layout are one layout with their median time, so that noise has no say."""
    rows = [*layouts([10, 11, 12, 13, 14], [10, 11, 12, 13, 14]), row(20.0, 14.0, layout="tp4")]
    found = ranking(rows)["groups"][0]
    assert found["layouts"] == FEWEST
    assert found["tau"] == pytest.approx(1.0)


def test_other_work_is_not_ranked_together():
    """Groups are apart, and sources are averaged apart."""
    rows = [
        *layouts([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], ranking_group="a", source="Alpha 2024"),
        *layouts([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], ranking_group="b", source="Beta 2025"),
    ]
    found = ranking(rows)
    assert found["mean_tau"] == pytest.approx(0.0)
    assert found["by_source"]["Alpha"]["mean_tau"] == pytest.approx(1.0)
    assert found["by_source"]["Beta"]["mean_regret"] == pytest.approx(4.0)


def test_predictions_all_alike_have_no_order():
    """Tau is not defined where nothing is told apart, and the mean leaves it out."""
    found = ranking(layouts([1, 2, 3, 4, 5], [7, 7, 7, 7, 7]))
    assert found["groups"][0]["tau"] is None
    assert found["mean_tau"] is None


def test_layouts_share_a_group_and_other_batches_or_releases_do_not():
    """What a planner may choose leaves the group alone; batch, model, format and software make another."""

    def group(**sections):
        run = changed(**sections)
        return facts.ranking_group(run, translate(run))

    usual = group()
    assert group(parallel={"tp": 8, "cp": 1}) == usual
    assert group(parallel={"vpp": 2}) == usual
    for other in (
        {"parallel": {"gbs": 256}}, {"framework": "NeMo 25.09"}, {"precision": "fp8"}, {"model": {"seq_len": 4096}},
        {"model": {"layers": 40}, "parallel": {"vpp": None}}, {"hardware": {"num_gpus": 128}},
    ):  # fmt: skip
        assert group(**other) != usual


def test_layouts_have_different_names():
    """Each choice of the strategy is in the name, and degrees of 1 are not."""

    def name(**sections):
        return facts.layout(translate(changed(**sections)))

    assert name() == "tp4 pp4 vpp5 cp2 dp2 mbs1 zero1 interleaved"
    assert name(parallel={"mbs": 2}) != name()
    assert name(recompute="full") == f"{name()} recompute-full"


@pytest.mark.parametrize("strong", [False, True])
def test_slopes_are_of_throughput(strong):
    """Perfect scaling has slope 1 at fixed work per GPU and at a fixed batch; a planted loss is found."""
    sizes = (8, 16, 32, 64)
    rows = []
    for gpus in sizes:
        tokens = 1e6 if strong else 1e5 * gpus
        seconds = tokens / (100.0 * gpus**0.9)
        rows.append(row(seconds, tokens / (120.0 * gpus), gpus=gpus, tokens_per_step=tokens, scaling_group="weak"))
    found = scaling(rows)
    group = found["groups"][0]
    assert group["measured_slope"] == pytest.approx(0.9)
    assert group["predicted_slope"] == pytest.approx(1.0)
    assert group["error"] == pytest.approx(0.1)
    assert found["within_tolerance"] == 0.0
    assert group["gpus"] == [8, 64]


def test_short_series_and_other_models_are_no_series():
    """Two sizes make no slope; a series of models of growing size is not one series."""
    rows = [row(gpus=size, model=f"m{size}", scaling_group="growing") for size in (8, 16, 32)]
    assert scaling(rows)["n"] == 0
    assert scaling([row(gpus=size, scaling_group="short") for size in (8, 16)])["groups"] == []
    assert scaling([row()])["median_abs_error"] is None


def test_the_fastest_run_of_a_size_stands_for_it():
    """Of several layouts of one size the one with the most measured tokens per second is compared."""
    rows = [row(10.0 / size, 10.0 / size, gpus=size, scaling_group="series") for size in (8, 16, 32)]
    slow = row(10.0, 1.0, gpus=32, scaling_group="series")
    assert scaling([*rows, slow])["groups"] == scaling(rows)["groups"]


def test_the_parts_of_a_row_sum_to_its_step():
    """The breakdown of a predicted row is that of the step, and the largest parts are named first."""
    found = predict(RUN)
    assert math.fsum(found["time"].values()) == pytest.approx(found["predicted_step_s"])
    assert dominant(row(predicted=10.0)) == "compute 70 %, bubble 20 %"
    assert isinstance(translate(RUN), Plan)


def test_tables_name_the_worst_and_leave_out_what_is_empty():
    """The worst row stands first with what it is spent on; without groups there is no table of them."""
    rows = [row(10.0, 11.0, id="good"), row(10.0, 20.0, id="bad", kind="moe"), refused()]
    for made in rows:
        made["sets"] = ["trust_A"]
    data = {"rows": rows, "summary": summary(rows)}
    found = {sheet.title: sheet for sheet in sheets(data)}
    assert [cells[0] for cells in found["Worst rows"].rows] == ["bad", "good"]
    assert found["Worst rows"].rows[0][3:] == ("+100.0 %", "compute 70 %, bubble 20 %")
    assert found["Refused rows"].rows == [("not stated", "1")]
    assert found["Sets"].rows[0][0] == "trust A (1 of 3 refused)"
    assert found["Step time. By kind of model"].rows[1][0] == "mixture of experts"
    assert "Ranking" not in found
    assert "Scaling" not in found
    assert all(len(cells) == len(sheet.headers) for sheet in found.values() for cells in sheet.rows)


def test_tables_of_groups_and_series():
    """Sources and groups of layouts are listed with tau and regret, series with both slopes."""
    rows = layouts([10, 11, 12, 13, 14], [10, 11, 12, 14, 13])
    weak = {"scaling_group": "weak", "ranking_group": "growing"}
    rows += [row(gpus=size, tokens_per_step=1e6 * size, **weak) for size in (8, 16, 32)]
    found = {sheet.title: sheet for sheet in sheets({"rows": rows, "summary": summary(rows)})}
    assert found["Ranking"].rows[-1][-2:] == ("0.80", "0.0 %")
    assert found["Scaling"].rows == [("weak, zephyr", "8 - 32", "1.000", "1.000", "+0.000")]
    assert "1 series" in found["Scaling"].notes[0]


def test_progress_is_told_row_by_row(root):
    """Each row is announced with its place among all, and the result has as many rows."""
    path, told = root / "tests" / "published" / "runs.yaml", []
    rows = selected(path, {"gpu": "GB300"})
    found = validate(path, rows, lambda what, done, of: told.append((what, done, of)))
    assert told == [("rows predicted", done, len(rows)) for done in range(len(rows))]
    assert len(found["rows"]) == len(rows)


def test_progress_is_for_terminals(monkeypatch, capsys):
    """One line is written over on a terminal and ended with the last; nothing elsewhere and with --quiet."""
    assert progress() is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress(quiet=True) is None
    show = progress()
    show("rows predicted", 0, 1200)
    assert capsys.readouterr().err == "\r\x1b[Krows predicted: 1 of 1,200"
    show("rows predicted", 1199, 1200)
    assert capsys.readouterr().err.endswith("1,200 of 1,200\n")
