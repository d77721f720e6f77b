"""Fits of mechanisms on published runs."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner import fitted, stack
from planner.fit.__main__ import toml
from planner.fit.problem import CLOCK, PARAMETERS, load
from planner.fit.solve import errors, layout_of, solve

RUNS = Path(__file__).parents[1] / "published" / "runs.yaml"


@pytest.fixture(scope="module")
def runs():
    """Sixteen real runs of one stack on two generations of GPUs."""
    found = [run for run in load(RUNS) if run.plan.setting.stack.name == "nemo"]
    return sorted(found, key=lambda run: run.name)[:16]


def test_planted_mechanisms_are_recovered(runs):
    """Step times made with other values lead the fit to predict them within 2 % (its priors pull back)."""
    layout = layout_of(runs)
    prior = layout.prior()
    planted = prior.copy()
    planted[0] += 0.3  # pointwise traffic
    planted[1] -= 0.2  # attention rate
    planted[4] -= 0.2  # tensor overlap
    moved = errors(runs, layout, planted)
    made = [replace(run, target=run.target + moved[run.name]) for run in runs]
    before = np.abs(list(errors(made, layout, prior).values()))
    after = np.abs(list(errors(made, layout, solve(made, layout, prior, prior, rounds=8)).values()))
    assert np.mean(before) > 0.05
    assert np.mean(after) < 0.02
    assert np.mean(after) < 0.3 * np.mean(before)


def test_the_file_is_read_back(runs):
    """The TOML that a fit writes holds each mechanism of each stack, and the clocks."""
    layout = layout_of(runs)
    data = tomllib.loads(toml(runs, layout, layout.prior(), "none"))
    assert set(data["stacks"]["nemo"]) == {p.name for p in PARAMETERS}
    assert set(data["sustained"]) == {run.generation for run in runs} | {"all"}


def test_fitted_values_are_within_their_meaning():
    """Each fitted value lies in the range in which its mechanism means something, and overlays its stack."""
    table = fitted.table()
    for name, values in table["stacks"].items():
        for p in PARAMETERS:
            assert p.low <= values[p.name] <= p.high, f"{name} {p.name}"
            assert getattr(stack.load(name), p.name) == values[p.name]
    assert all(CLOCK.low <= value <= CLOCK.high for value in table["sustained"].values())


def test_what_was_not_seen_keeps_its_prior():
    """A generation without runs takes the clock of all; a stack without runs its own file."""
    assert fitted.sustained("tpu") == fitted.table()["sustained"]["all"]
    assert fitted.of_stack("hai-llm") == {}
    assert stack.load("hai-llm").expert_overlap == 1.0
