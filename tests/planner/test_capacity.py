import csv
import io
import json
import re

import pytest

from planner.cli import main
from planner.commands.capacity import sizes
from planner.errors import InputError
from planner.search.capacity import PAYS, answers, knee

DAY = 86400.0
BASE = ("capacity", "llama3.1-8b", "--cluster", "h100-superpod", "--quiet")


def at(gpus, rate=1.0, days=10.0, cost=1e6):
    """A feasible point."""
    return {"gpus": gpus, "feasible": True, "tokens_per_day": rate, "days": days, "cost_usd": cost}


def none(gpus):
    """A size without a plan."""
    return {"gpus": gpus, "feasible": False, "reason": "too small"}


def line(cluster, *points):
    """The series of a cluster."""
    return {"cluster": cluster, "points": list(points), "knee": knee(points)}


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([at(8, 1.0), at(16, 2.0), at(32, 4.0)], None),
        ([at(8, 1.0), at(16, 1.9), at(32, 2.5), at(64, 2.6)], 16),
        ([at(8, 1.0), at(16, PAYS), at(32, PAYS * PAYS)], None),
        ([at(8, 1.0), at(16, PAYS - 0.01)], 8),
        ([at(32, 2.5), at(8, 1.0), at(16, 1.9)], 16),
        ([none(8), at(16, 1.0), at(32, 1.2)], 16),
        ([at(8, 1.0), none(16), at(32, 1.1)], None),
        ([at(8, 1.0)], None),
        ([], None),
    ],
)
def test_the_knee_is_the_last_size_whose_doubling_pays(points, expected):
    """The knee is the smallest size whose doubling gives less than 1.5 times the tokens a day; gaps don't count."""
    assert knee(points) == expected


SERIES = [
    line("near", at(8, 1.0, 40.0, 1e6), at(16, 1.9, 21.0, 1.1e6), at(32, 2.5, 16.0, 1.6e6)),
    line("far", none(8), at(16, 1.0, 20.0, 1.3e6), at(32, 2.0, 10.0, 2.0e6)),
]


def told(deadline=None, budget=None):
    """The answer to a deadline or a budget, beside those on the knees."""
    (text,) = [text for text in answers(SERIES, (deadline, budget)) if not text.startswith("On ")]
    return text


def test_a_deadline_picks_the_cheapest_that_keeps_it():
    """Of the sizes that finish in time, the cheapest of all clusters is named, with its days and money."""
    text = told(deadline=30 * DAY)
    assert "16 GPUs of near take 21.0 days for $1.1M" in text
    assert "16 GPUs of far take 20.0 days for $1.3M" in told(deadline=20 * DAY)


def test_a_deadline_that_none_keeps_names_the_fastest():
    """When no size is in time the fastest is named."""
    text = told(deadline=5 * DAY)
    assert text.startswith("No size shown finishes in 5.0 d")
    assert "10.0 days on 32 GPUs of far" in text


def test_a_budget_picks_the_fastest_within_it():
    """Of the sizes within the budget, the fastest of all clusters is named."""
    assert "32 GPUs of near are the fastest, 16.0 days for $1.6M" in told(budget=1.7e6)
    assert "32 GPUs of far are the fastest, 10.0 days for $2.0M" in told(budget=2.0e6)


def test_a_budget_that_none_keeps_names_the_cheapest():
    """When every size costs more the cheapest is named."""
    text = told(budget=5e5)
    assert text.startswith("No size shown stays within $500k")
    assert "$1.0M on 8 GPUs of near" in text


def test_each_cluster_is_told_where_it_stops_paying():
    """One sentence per cluster: its knee, or that every doubling pays."""
    first, second = answers(SERIES, (None, None))
    assert "near" in first
    assert "beyond 16 GPUs" in first
    assert "far every doubling shown" in second


def test_sizes_double_or_are_listed():
    """FROM..TO doubles and stays within; a list is sorted, each size once."""
    assert sizes("128..1024") == [128, 256, 512, 1024]
    assert sizes("100..399") == [100, 200]
    assert sizes("64,8,8,1k") == [8, 64, 1000]
    with pytest.raises(InputError, match="FROM at most TO"):
        sizes("64..8")


def test_the_json_of_capacity(capsys):
    """Each point is feasible with its numbers or has a reason; more GPUs of one kind never train slower here."""
    assert main([*BASE, "--gpus", "16..64", "--json", "--deadline", "300d", "--budget", "2M"]) == 0
    data = json.loads(capsys.readouterr().out)
    (series,) = data["series"]
    assert [point["gpus"] for point in series["points"]] == [16, 32, 64]
    assert all(point["feasible"] for point in series["points"])
    rates = [point["tokens_per_day"] for point in series["points"]]
    assert rates == sorted(rates)
    for point in series["points"]:
        assert point["memory_headroom"] >= 0.0
        assert point["strategy"]["world"] == point["gpus"]
        assert point["cost_usd"] > 0.0
        assert point["days"] * point["tokens_per_day"] >= data["workload"]["tokens"]
    assert series["knee"] == knee(series["points"])
    assert len(data["answers"]) == 3
    assert any(text.startswith("To finish in 300 d: 64 GPUs of h100-superpod") for text in data["answers"])


def test_a_size_without_a_plan_has_its_reason(capsys):
    """A size that is too small is a point with a reason, beside those that are not."""
    arguments = ["capacity", "llama3.1-70b", *BASE[2:], "--gpus", "8,64"]
    assert main([*arguments, "--json"]) == 0
    small, large = json.loads(capsys.readouterr().out)["series"][0]["points"]
    assert not small["feasible"]
    assert "memory" in small["reason"]
    assert large["feasible"]
    assert main([*arguments, "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[1][:2] == ["8", "no plan"]
    assert {len(row) for row in rows} == {12}


def test_out_holds_data_and_chart(tmp_path, capsys):
    """--out writes capacity.json, which is what stdout carries, and a chart; nothing else."""
    assert main([*BASE, "--gpus", "32,64", "--json", "--out", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out"
    assert {path.name for path in folder.iterdir()} == {"capacity.json", "capacity.html"}
    assert (folder / "capacity.json").read_text(encoding="utf-8") == capsys.readouterr().out
    assert re.match("<!doctype html>", (folder / "capacity.html").read_text(encoding="utf-8"), flags=re.IGNORECASE)
