"""The table that a fit prints, and the page that it is put into."""

import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.fit.__main__ import main
from planner.fit.problem import load
from planner.fit.quality import HEAD, insert, order, parts, table, words

RUNS = Path(__file__).parents[1] / "published" / "runs.yaml"


@pytest.fixture(scope="module")
def runs():
    """All runs of the tests; every third is in a set."""
    return [
        replace(run, facts={**run.facts, "sets": ["relaxed_set"] * (i % 3 == 0)}) for i, run in enumerate(load(RUNS))
    ]


def test_the_table_parts_runs_by_set_kind_regime_and_source(runs):
    """Every source has a row, sets and their mixtures too, and each row counts its runs."""
    inside = dict.fromkeys((run.name for run in runs), np.log(1.02))
    outside = {run.name: np.log(1.1) for run in runs}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(runs, inside, outside).splitlines()]
    assert rows[0] == list(HEAD)
    found = {row[0]: row[1:] for row in rows[2:]}
    assert found["all, in the sample"][:5] == [str(len(runs)), "2.0 %", "2.0 %", "2.0 %", "+2.0 %"]
    assert found["all, source left out"] == [str(len(runs)), *["10.0 %"] * 3, "+10.0 %", "100.0 %"]
    assert found["relaxed set"][0] == str(len(runs[::3]))
    assert {run.source for run in runs} <= set(found)
    assert {"hopper-moe", "relaxed set, mixtures"} <= set(found)


def test_parts_hold_each_run_once_by_source(runs):
    """Sources part the runs; mixtures are the runs with experts."""
    found = parts(runs)
    assert sum(len(found[source]) for source in {run.source for run in runs}) == len(runs)
    assert all(run.plan.setting.model.experts for run in found["mixtures of experts"])


def test_rows_of_the_file_name_their_sets(tmp_path):
    """Sets and trust of a row reach the run."""
    text = RUNS.read_text(encoding="utf-8")
    file = tmp_path / "runs.yaml"
    file.write_text(text.replace("- id:", "- trust: A\n  core_set: true\n  id:", 1), encoding="utf-8")
    assert load(file)[0].facts["sets"] == ["core_set", "trust_A"]


def test_ranking_and_slopes_are_told(runs):
    """Predictions without error rank and grow as measured; sources of groups have a sentence of their own."""
    facts = {**runs[0].facts, "ranking_group": "same", "scaling_group": "weak", "source": "Zephyr 2026"}
    made = [
        replace(run, target=float(i), facts={**facts, "layout": f"tp{i}", "gpus": 8 * 2**i})
        for i, run in enumerate(runs[:5])
    ]
    found = order(made, dict.fromkeys((run.name for run in made), 0.0))
    assert found[0] == "Kendall's tau, all (groups of layouts: 1): 1.00, regret 0.0 %"
    assert found[1].startswith("Kendall's tau, Zephyr")
    assert found[2] == "layouts more than 3 % apart: 100.0 % of 10 pairs are in order"
    assert found[3] == "slopes over GPUs (1 series): median 0.000 off, 100 % within 0.03"
    assert order(made[:1], {made[0].name: 0.0}) == []


def test_words_have_a_sign_for_the_bias():
    """Errors are absolute, the bias is not."""
    assert words(np.log([0.9, 0.9])) == "median 10.0 %, mean 10.0 %, P90 10.0 %, bias -10.0 %"


def test_a_page_keeps_all_but_what_is_between_the_marks(tmp_path):
    """The old table goes, the rest stays, and a page without marks is refused."""
    page = tmp_path / "page.md"
    page.write_text("# Head\n<!-- fit:begin -->\nold\n<!-- fit:end -->\nfoot\n", encoding="utf-8")
    insert(page, "fit", "| new \\1 |\n")
    insert(page, "fit", "| new \\1 |\n")
    assert page.read_text(encoding="utf-8") == "# Head\n<!-- fit:begin -->\n| new \\1 |\n<!-- fit:end -->\nfoot\n"
    with pytest.raises(ValueError, match="0 places"):
        insert(page, "budget", "x")


def test_a_fit_writes_both_files_and_tells_how_good_it_is(runs, tmp_path):
    """Fitted values and intervals are TOML that the planner reads; the table counts all runs."""
    chosen = sorted((run for run in runs if run.plan.setting.stack.name == "nemo"), key=lambda run: run.name)[:8]
    told = main(chosen, tmp_path)
    values = tomllib.loads((tmp_path / "fitted.toml").read_text(encoding="utf-8"))
    intervals = tomllib.loads((tmp_path / "intervals.toml").read_text(encoding="utf-8"))
    assert set(values["stacks"]) >= {"nemo", "hai-llm"}
    assert intervals["regimes"]["all"]["runs"] == len(chosen)
    assert set(intervals["widening"]) == {"family", "generation", "size"}
    assert intervals["seen"]["families"] == ["megatron"]
    assert intervals["seen"]["gpus"] == max(run.plan.setting.cluster.gpus for run in chosen)
    assert f"| all, source left out | {len(chosen)} |" in told
    assert "- whole generation left out (8 runs)" in told


@pytest.mark.parametrize(("given", "told"), [(["missing.yaml", "out"], "does not exist"), (["out"], "expected files")])
def test_nothing_to_fit_is_said_in_a_sentence(given, told, tmp_path):
    """A missing file and a missing list of files end with exit code 3 and no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "planner.fit", *given], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 3
    assert told in done.stderr
    assert "Traceback" not in done.stderr
