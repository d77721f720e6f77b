"""Fits of mechanisms on published runs."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwprofiles import load as load_profile
from planner import fitted, stack
from planner.fit.__main__ import toml
from planner.fit.problem import CLOCK, HOST, PARAMETERS, load
from planner.fit.solve import errors, fit, layout_of, solve

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
    """The TOML that a fit writes holds each mechanism of each stack, the clocks, and stacks that no run shows."""
    layout = layout_of(runs)
    vector, spread = fit(runs, layout, layout.prior(), layout.prior(), rounds=1)
    data = tomllib.loads(toml(runs, layout, vector, spread, "none"))
    assert set(data["stacks"]["nemo"]) == {p.name for p in PARAMETERS}
    assert {"hai-llm", "megatron-core"} <= set(data["stacks"])
    for gpu, form in layout.clocks:
        assert CLOCK.low <= data["sustained"][gpu][form] <= CLOCK.high


def test_standard_errors_shrink_with_runs(runs):
    """No error is larger than that of its prior, and what runs show has a smaller one."""
    layout = layout_of(runs)
    _, spread = fit(runs, layout, layout.prior(), layout.prior(), rounds=1)
    share = spread[: len(PARAMETERS)] / [p.sigma for p in PARAMETERS]
    assert share.max() <= 1.0 + 1e-9
    assert share[[p.name for p in PARAMETERS].index("pointwise_traffic")] < 0.95


def test_kin_are_expected_to_deviate_alike(runs):
    """A stack without runs moves as far from its file as its family did, times their kinship; strangers don't move."""
    layout = layout_of(runs)
    moved = layout.prior()
    moved[0] += 0.5
    stated = stack.prior("hai-llm")["pointwise_traffic"]
    assert layout.expected_stack("hai-llm", moved)["pointwise_traffic"] == pytest.approx(
        stated * np.exp(PARAMETERS[0].kin * 0.5)
    )
    assert layout.expected_stack("jax-xla", moved)["pointwise_traffic"] == stack.prior("jax-xla")["pointwise_traffic"]
    clocks = layout.prior()
    clocks[layout.block : -1] = np.log(0.9)
    assert layout.expected_clock("tpu", clocks) == 1.0
    assert 0.9 < layout.expected_clock(runs[0].plan.setting.gpu.generation, clocks) < 0.95


def test_fitted_values_are_within_their_meaning():
    """Each fitted value lies in the range in which its mechanism means something, and overlays its stack."""
    table = fitted.table()
    for name, values in table["stacks"].items():
        for p in PARAMETERS:
            assert p.low * 0.999 <= values[p.name] <= p.high * 1.001, f"{name} {p.name}"
            assert getattr(stack.load(name), p.name) == values[p.name]
    assert HOST.low <= table["host_pace"]["grace"] <= HOST.high
    for value in table["sustained"].values():
        for clock in value.values() if isinstance(value, dict) else [value]:
            assert CLOCK.low <= clock <= CLOCK.high * 1.001


def test_what_was_not_seen_takes_what_its_kin_show():
    """A format or a GPU without runs takes the clock of its generation, that of all when there is none."""
    table = fitted.table()["sustained"]
    h100 = load_profile.gpu("h100-sxm")
    assert fitted.sustained(h100, "fp8") == table["h100-sxm"]["fp8"]
    assert fitted.sustained(h100, "fp4") == table["hopper"]
    assert fitted.sustained(load_profile.gpu("tpu-v5p"), "bf16") == table["all"]
    assert fitted.of_stack("torch-eager") == {}
    assert stack.load("hai-llm").expert_overlap == 1.0
