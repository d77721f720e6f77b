"""The 90 % interval of a step time: where its factors come from, how often they hold, what makes it wider."""

import tomllib
from dataclasses import replace

import numpy as np
import pytest

from hwprofiles import load
from planner import interval as module
from planner import stack
from planner.interval import interval, novelties, regime, widening
from planner.plan import estimate_json
from planner.validate import intervals
from planner.validate.intervals import FEWEST, Residual, covered, fit_intervals, text
from planner.validate.translate import translate
from tests.planner.test_validate import RUN


@pytest.fixture
def setting():
    """A dense model on H100s under NeMo: all of it was seen by the fit."""
    return translate(RUN).setting


@pytest.fixture
def table(monkeypatch):
    """A file of intervals with round numbers."""
    made = {
        "regimes": {
            "all": {"factors": [0.8, 1.25], "runs": 100},
            "hopper-dense": {"factors": [0.9, 1.1], "runs": 50},
            "blackwell-dense": {"factors": [1.02, 1.2], "runs": 50},
        },
        "widening": {"family": 1.5, "generation": 2.0, "size": 1.2},
        "seen": {"families": ["megatron"], "generations": ["hopper"], "gpus": 4096},
    }
    monkeypatch.setattr(module, "_table", lambda: made)
    return made


def residuals(source, regime_name, count=FEWEST, spread=0.1, seed=0):
    """Made-up runs of one source whose log ratios have the given spread."""
    ratios = np.exp(spread * np.random.default_rng(seed).standard_normal(count))
    return [Residual(source, regime_name, float(ratio)) for ratio in ratios]


@pytest.mark.usefixtures("table")
def test_factors_are_those_of_the_regime(setting):
    """The interval is the step time times the quantiles of its GPU generation and kind of model."""
    assert regime(setting) == "hopper-dense"
    assert interval(setting, 10.0) == (pytest.approx(9.0), pytest.approx(11.0))


@pytest.mark.usefixtures("table")
def test_a_biased_regime_still_holds_the_estimate(setting):
    """Where all runs were slower than predicted, the lower bound is the prediction itself."""
    seen = replace(setting, cluster=load.cluster("b200-superpod", 64))
    low, high = interval(seen, 10.0)
    assert low == 10.0
    assert high == pytest.approx(10.0 * 1.2**2.0)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("change", "new", "power"),
    [
        ({}, [], 1.0),
        ({"stack": stack.load("torch-eager")}, ["family"], 1.5),
        ({"cluster": load.cluster("b200-superpod", 64)}, ["generation"], 2.0),
        ({"cluster": load.cluster("h100-superpod", 8192)}, ["size"], 1.2),
        ({"cluster": load.cluster("b200-superpod", 8192), "stack": stack.load("torch-eager")},
         ["family", "generation", "size"], 2.0),
    ],
)  # fmt: skip
def test_what_no_run_shows_makes_it_wider(setting, change, new, power):
    """A new family of stacks, GPU generation or size raises the factors to its power; of several the largest counts."""
    changed = replace(setting, **change)
    assert novelties(changed) == new
    assert widening(changed) == power


@pytest.mark.usefixtures("table")
def test_a_wider_interval_holds_the_narrower_one(setting):
    """The power moves both bounds outwards."""
    low, high = interval(setting, 10.0)
    wide = interval(replace(setting, stack=stack.load("torch-eager")), 10.0)
    assert wide[0] < low < high < wide[1]


def test_the_file_in_use_has_all_that_is_asked_of_it(setting):
    """Powers are at least 1, and what the published runs show is seen."""
    made = module._table()
    assert set(made["widening"]) == {"family", "generation", "size"}
    assert all(power >= 1.0 for power in made["widening"].values())
    assert novelties(setting) == []
    assert novelties(replace(setting, stack=stack.load("hai-llm"))) == []  # its family has runs
    assert novelties(replace(setting, stack=stack.load("torch-eager"))) == ["family"]


def test_an_estimate_says_what_is_new_about_it(setting):
    """Its JSON names what no run shows, beside the wider interval."""
    plan = translate(RUN)
    assert estimate_json(setting, plan.degrees)["interval_new"] == []
    other = replace(setting, stack=stack.load("torch-eager"))
    assert estimate_json(other, plan.degrees)["interval_new"] == ["family"]


def test_a_stack_without_kin_is_its_own_family():
    """Names of no file, such as a stack in a test, are families of their own."""
    assert stack.family("nemo") == stack.family("hai-llm") == "megatron"
    assert stack.family("torch-eager") == "torch-eager"
    assert stack.family("made-up") == "made-up"


def test_quantiles_need_runs_and_sources():
    """A regime has factors of its own from enough runs of two sources; the rest is left to all."""
    few = residuals("a", "small", FEWEST - 1)
    alone = residuals("a", "alone", 2 * FEWEST)
    known = [*residuals("a", "known"), *residuals("b", "known", seed=1)]
    found = fit_intervals([*few, *alone, *known])
    assert set(found) == {"all", "known"}
    assert found["known"]["runs"] == 2 * FEWEST
    ratios = [each.ratio for each in known]
    assert found["known"]["factors"] == [pytest.approx(np.quantile(ratios, q)) for q in (0.05, 0.95)]


def test_intervals_of_alike_sources_hold_nine_in_ten():
    """Sources drawn from one distribution are covered as often as the interval says."""
    made = [each for seed in range(8) for each in residuals(f"s{seed}", "known", 200, seed=seed)]
    found = covered(made)
    assert len(found) == 1600
    assert np.mean(found) == pytest.approx(0.9, abs=0.02)


def test_a_source_unlike_the_others_is_not_covered():
    """The interval of a source comes from other sources: a source far off lies outside, however many runs it has."""
    odd = [Residual("odd", "known", 2.0)] * 300
    usual = [each for seed in range(4) for each in residuals(f"s{seed}", "known", 50, seed=seed)]
    found = covered([*usual, *odd])
    assert np.mean(found[:200]) > 0.8
    assert not any(found[200:])
    assert not any(covered(odd))  # nothing to make an interval from


def test_widening_compares_the_same_runs():
    """The spread of what was left out in full, over that of the same runs left out by source; never below 1."""
    usual = {"a": 0.1, "b": -0.1, "c": 5.0}
    assert intervals.widening({"a": 0.2, "b": -0.2}, usual) == pytest.approx(2.0)
    assert intervals.widening({"a": 0.01, "b": -0.01}, usual) == 1.0


def test_the_file_is_read_back():
    """What is written is TOML with regimes, powers and what was seen."""
    regimes = fit_intervals([*residuals("a", "known"), *residuals("b", "known")])
    seen = {"families": ["megatron"], "generations": ["hopper"], "gpus": 4096}
    made = tomllib.loads(text(regimes, {"family": 1.234}, seen, "2026-01-31"))
    assert made["regimes"]["known"]["factors"] == [pytest.approx(f, abs=1e-3) for f in regimes["known"]["factors"]]
    assert made["widening"] == {"family": 1.23}
    assert made["seen"] == seen
    assert made["data"].startswith("60 published runs")
