import json

import pytest

from planner.cli import main
from reports.figures import FIGURES
from reports.page import training_page, tuning_page
from tests.reports import training_fixtures


def test_the_page_of_a_training_shows_what_it_came_to():
    """Curves, scores of both splits, a classification's report, what was forgotten, and that it stopped early."""
    page = training_page(training_fixtures.training())
    for expected in (
        "It stopped early and kept step 20.",
        "A test loss of 0.900 and an accuracy of 81.0 %.",
        'id="figure-training_curve"',
        'id="figure-learning_rate"',
        "Report of the classification",
        "What was forgotten",
        "f1-score",
    ):
        assert expected in page


def test_a_training_without_evaluations_has_a_page():
    """A stopped training, and one that held nothing out, lack tables and still say how far they came."""
    made = training_fixtures.training() | {"evaluations": [], "best": None, "forgetting": None, "final": {}}
    made["stopped_early"] = False
    assert "40 steps are done; no sample was held out." in training_page(made)
    assert "Stopped by a signal after step 40" in training_page(made | {"stopped": True})
    names = [trace.name for trace in FIGURES["training_curve"].draw(made).data]
    assert names == ["Training"]


def test_the_page_of_a_search_shows_every_trial():
    """Failed trials are listed and counted, the best is a star."""
    page = tuning_page(training_fixtures.tuning())
    assert "1 did not come to an end" in page
    assert "failed" in page
    figure = FIGURES["trials"].draw(training_fixtures.tuning())
    assert [trace.name for trace in figure.data] == ["10 steps", "30 steps", "Best"]


@pytest.mark.parametrize("make", [training_fixtures.training, training_fixtures.tuning])
def test_plan_report_knows_a_training(tmp_path, make, capsys):
    """`plan report` writes the page of what `plan train` wrote; a comparison belongs to plans alone."""
    path, out = tmp_path / "told.json", tmp_path / "page.html"
    path.write_text(json.dumps(make()), encoding="utf-8")
    assert main(["report", str(path), "--out", str(out)]) == 0
    assert "<html" in out.read_text("utf-8")
    assert main(["report", str(path), "--comparison", str(path)]) == 3
    assert "belongs to a plan" in capsys.readouterr().err
