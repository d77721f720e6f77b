import json

import pytest

from planner.cli import main
from planner.validate.summary import summary
from reports.figures import FIGURES
from reports.page import accuracy_page
from tests.reports.accuracy_fixtures import accuracy

FIGURES_OF_IT = ("predicted_measured", "error_by_source", "layout_ranking", "growth_slopes")


def traces(name, artefact):
    """The traces of a figure by name."""
    return {trace.name: trace for trace in FIGURES[name].draw(artefact).data}


def only(rows):
    """A validation of these rows."""
    return accuracy() | {"rows": rows, "summary": summary(rows)}


def test_every_run_has_a_mark_and_its_interval():
    """Each predicted run is drawn once at (measured, predicted), with a line from the lower to the upper bound."""
    made = accuracy()
    good = [row for row in made["rows"] if row["error"] is not None]
    drawn = [
        trace for name, trace in traces("predicted_measured", made).items() if ", " in name and "worst" not in name
    ]
    points = sorted(point for trace in drawn for point in zip(trace.x, trace.y, strict=True))
    assert points == sorted((row["measured_step_s"], row["predicted_step_s"]) for row in good)
    for trace in drawn:
        for y, up, down in zip(trace.y, trace.error_y.array, trace.error_y.arrayminus, strict=True):
            assert (y - down, y + up) == (pytest.approx(0.9 * y), pytest.approx(1.15 * y))


def test_the_axes_are_logarithmic_in_seconds():
    """Both axes say their unit and are logarithmic."""
    figure = FIGURES["predicted_measured"].draw(accuracy())
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert axis.type == "log"
        assert axis.title.text.endswith("(s)")


def test_the_worst_rows_are_ringed_and_named():
    """The rings are the runs with the largest errors, and the table names them, the worst first, with their parts."""
    made = accuracy()
    worst = sorted((row for row in made["rows"] if row["error"] is not None), key=lambda row: -abs(row["error"]))[:15]
    ring = traces("predicted_measured", made)["The 15 worst, named below"]
    assert list(ring.x) == [row["measured_step_s"] for row in worst]
    page = accuracy_page(made)
    table = page[page.index('id="worst"') :]
    assert all(f"<td>{row['id']}</td>" in table for row in worst)
    assert "compute 70.0 %, pipeline bubble 20.0 %" in table
    assert table.index(worst[0]["id"]) < table.index(worst[-1]["id"])


def test_sources_have_a_bar_and_a_diamond():
    """Median and ninetieth percentile in percent, the source with the most runs first."""
    made = accuracy()
    drawn = traces("error_by_source", made)
    found = made["summary"]["by_source"]
    assert sorted(drawn["Median"].x) == sorted(100 * part["median_abs_error"] for part in found.values())
    assert all(p90 >= median for p90, median in zip(drawn["Ninetieth percentile"].x, drawn["Median"].x, strict=True))


def test_the_page_has_every_part():
    """Figures, tables of every part, ranking, slopes, refusals with their reasons, and what the figures mean."""
    page = accuracy_page(accuracy())
    for name in FIGURES_OF_IT:
        assert f'id="figure-{name}"' in page
    for words in (
        "25 published runs of runs.yaml", "Step time by kind of model", "Mixture of experts",
        "Step time by number of GPUs",
        "9 to 64", "Peak memory by set of runs", "Relaxed set", "the sequence length is not stated", "All 2 groups",
        "All 3 series", "What the numbers mean", "Kendall",
    ):  # fmt: skip
        assert words in page
    text = page[page.index("<header") : page.index("<footer")]
    assert "None" not in text
    assert "nan" not in text.lower().split()


def test_a_page_without_groups_series_or_errors_is_written():
    """What has no data is left out of page and menu, and no value is made up."""
    rows = accuracy()["rows"]
    for kept in (rows[:1], rows[-1:]):
        page = accuracy_page(only(kept))
        assert 'id="ranking"' not in page
        assert 'id="scaling"' not in page
    assert 'id="worst"' not in accuracy_page(only(rows[-1:]))
    assert 'id="refused"' not in accuracy_page(only(rows[:1]))


def test_plan_report_knows_a_validation(tmp_path, capsys):
    """`plan report` writes the page of what `plan validate --json` printed; an older summary is refused in words."""
    path, out = tmp_path / "validation.json", tmp_path / "page.html"
    path.write_text(json.dumps(accuracy()), encoding="utf-8")
    assert main(["report", str(path), "--out", str(out)]) == 0
    assert out.read_text("utf-8") == accuracy_page(accuracy())
    assert main(["report", str(path), "--comparison", str(path)]) == 3
    assert "belongs to a plan, and this is a validation" in capsys.readouterr().err
    for broken in ({"rows": [], "summary": {"time": {}}}, accuracy() | {"rows": [3]}, accuracy() | {"rows": [{}]}):
        path.write_text(json.dumps(broken), encoding="utf-8")
        assert main(["report", str(path), "--out", str(out)]) == 3
        assert "write it anew" in capsys.readouterr().err


def test_plan_validate_writes_the_page(tmp_path, root):
    """`plan validate --report` writes the page of the rows that it printed; `--dry-run` writes nothing."""
    out = tmp_path / "accuracy.html"
    runs = str(root / "tests" / "published" / "runs.yaml")
    arguments = ["validate", runs, "--where", "gpu=GB300", "--quiet", "--report", str(out)]
    assert main([*arguments, "--dry-run"]) == 0
    assert not out.exists()
    assert main(arguments) == 0
    assert "published runs of runs.yaml" in out.read_text("utf-8")
