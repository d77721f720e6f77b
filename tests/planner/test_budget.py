"""The error budget: mechanisms are taken out cleanly, and what a mechanism is worth is measured."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from planner.cost.step import StepTime
from planner.fit.ablations import HELD, KEPT, PARTS, ablations, alike, hold, immediate, leave, unshaped, unswitched
from planner.fit.budget import WHOLE, Line, Quality, budget, folds, markdown, quality
from planner.fit.problem import PARAMETERS, load
from planner.fit.solve import cross_validate, errors, fit, layout_of
from planner.validate.stages import step_as_cut

RUNS = Path(__file__).parents[1] / "published" / "runs.yaml"


@pytest.fixture(scope="module")
def every():
    """All runs of the tests."""
    return load(RUNS)


@pytest.fixture(scope="module")
def runs(every):
    """Twelve runs of two stacks and several sources."""
    found = [run for run in every if run.plan.setting.stack.name in ("nemo", "megatron-core")]
    return sorted(found, key=lambda run: (run.source, run.name))[:: max(len(found) // 12, 1)][:12]


def predicted(runs):
    """Log of the predicted step of each run at the a-priori values."""
    layout = layout_of(runs)
    found = errors([replace(run, target=0.0) for run in runs], layout, layout.prior())
    return np.array([found[run.name] for run in runs])


def test_every_part_of_the_step_has_a_line(every):
    """A part that is added to the step is in the budget by itself; what words describe exists."""
    names = {each.name for each in ablations(every)}
    parts = [field.name for field in fields(StepTime) if field.name not in KEPT]
    assert {PARTS.get(part, part) for part in parts} <= names
    assert set(PARTS) <= set(parts)
    assert len(names) == len(ablations(every))


@pytest.mark.parametrize("part", ["bubble", "data", "launch"])
def test_a_step_without_a_part_is_shorter_by_it(runs, part):
    """What is left is the sum of the other parts, at the values that the stacks have."""
    found = []
    for run in runs:
        held = {name: getattr(run.plan.setting.stack, name) for name in [p.name for p in PARAMETERS]}
        held |= {"sustained": run.plan.setting.sustained, "host_pace": run.plan.setting.host_pace}
        step = step_as_cut(run.plan.setting, run.plan.degrees)
        left = np.exp(predicted([leave(replace(run, held=held), part)])[0])
        assert left == pytest.approx(float(step.total) - float(getattr(step, part)))
        found.append(float(getattr(step, part)))
    assert max(found) > 0.0


@pytest.mark.parametrize("name", sorted(HELD))
def test_a_held_mechanism_is_not_fitted(runs, name):
    """The prediction of a run doesn't move with a mechanism that is held."""
    layout = layout_of(runs)
    held = [hold(run, name, HELD[name][0]) for run in runs]
    low, _ = layout.bounds()
    moved = layout.prior().copy()
    for run in runs:
        places = layout.places(run)
        names = [*(field for field in layout.of(run.plan.setting.stack.name, moved)), "sustained", "host_pace"]
        moved[places[names.index(name)]] = low[places[names.index(name)]] + 1e-3
    assert errors(held, layout, moved) == pytest.approx(errors(held, layout, layout.prior()))


def test_all_stacks_alike_share_their_parameters(runs):
    """One set of fitted mechanisms is left, and what the stacks fuse, hide or store stays their own."""
    changed = [alike(run, "nemo") for run in runs]
    assert layout_of(changed).stacks == ("nemo",)
    for run, other in zip(runs, changed, strict=True):
        assert other.plan.setting.stack.flash_attention == run.plan.setting.stack.flash_attention
        assert other.plan.setting.stack.gradient_bytes == run.plan.setting.stack.gradient_bytes
    same = [run for run in runs if run.plan.setting.stack.name == "nemo"]
    assert [alike(run, "nemo").plan for run in same] == [run.plan for run in same]


def test_without_small_sizes_or_latency_steps_are_no_longer(runs):
    """Kernels at their best and a network that starts at once never make a step longer."""
    usual = predicted(runs)
    for change in (unshaped, immediate):
        assert np.all(predicted([change(run) for run in runs]) <= usual + 1e-12)


def test_what_rows_switch_is_taken_back(every):
    """A run without its own words has the stack as its file has it."""
    switched = [run for run in every if unswitched(run).plan != run.plan]
    assert switched
    assert all(unswitched(unswitched(run)) == unswitched(run) for run in switched)


def test_the_runs_are_left_alone(runs):
    """An ablation makes another run; the plan, its target and its weight stay."""
    for each in ablations(runs):
        changed = each.change(runs[0])
        assert (changed.name, changed.target, changed.weight) == (runs[0].name, runs[0].target, runs[0].weight)
    assert runs[0].held == {}
    assert runs[0].without == ()


def test_a_mechanism_that_made_the_data_is_missed(runs):
    """Step times made with a bubble are predicted worse without one, and exactly by the whole model."""
    layout = layout_of(runs)
    made = [replace(run, target=run.target + errors([run], layout, layout.prior())[run.name]) for run in runs]
    bubbly = max(made, key=lambda run: -errors([leave(run, "bubble")], layout, layout.prior())[run.name])
    assert errors([bubbly], layout, layout.prior())[bubbly.name] == pytest.approx(0.0, abs=1e-9)
    assert errors([leave(bubbly, "bubble")], layout, layout.prior())[bubbly.name] < -0.005


def test_sources_are_dealt_out_whole(every):
    """Each source is in one fold, and the folds hold about as many runs each as sources allow."""
    found = folds(every, 3)
    sources = sorted({run.source for run in every})
    assert sorted(source for part in found for source in part) == sources
    sizes = [sum(run.source in part for run in every) for part in found]
    largest = max(sum(run.source == source for run in every) for source in sources)
    assert max(sizes) <= max(largest, len(every) / 3 + largest)
    assert len(folds(every[:1])) == 1


def test_labels_say_what_is_left_out(runs):
    """Runs labelled "" are never left out; the others are predicted by a fit that did not see their label."""
    layout = layout_of(runs)
    prior = layout.prior()
    start = fit(runs, layout, prior, prior, rounds=2)[0]
    found = cross_validate(runs, layout, prior, start, ["" if i else "one" for i in range(len(runs))])
    assert list(found) == [runs[0].name]
    assert found[runs[0].name] != errors(runs[:1], layout, start)[runs[0].name]


def test_the_budget_has_the_whole_model_first(runs, monkeypatch):
    """The first line is the model as it is; the rest come the most missed first, each with its share and errors."""
    chosen = [each for each in ablations(runs) if each.name in (PARTS["bubble"], PARTS["data"])]
    monkeypatch.setattr("planner.fit.budget.ablations", lambda _: chosen)
    whole, *lines = budget(runs)
    assert whole.name == WHOLE
    assert whole.share == (0.0, 0.0)
    assert {line.name for line in lines} == {each.name for each in chosen}
    assert lines[0].outside.mean >= lines[1].outside.mean
    assert all(line.share[1] > 0.0 for line in lines)
    assert whole.inside.mean <= whole.outside.mean


def test_the_table_is_markdown():
    """One row a mechanism, errors in percent."""
    found = Quality(0.01, 0.02, 0.03)
    lines = [Line(WHOLE, (0.0, 0.0), *[found] * 3), Line("bubble", (0.05, 0.2), *[found] * 3)]
    rows = markdown(lines, 7).splitlines()
    assert rows[0].startswith("7 runs")
    assert rows[-1] == "| bubble | 5.0 % (20.0 %) | " + " | ".join(["1.0 / 2.0 / 3.0 %"] * 3) + " |"
    assert len({row.count("|") for row in rows[2:]}) == 1


def test_quality_is_of_relative_errors():
    """Log errors become relative ones: half and double are 50 % and 100 % off."""
    found = quality(np.log([0.5, 2.0, 1.0]))
    assert found.median == pytest.approx(0.5)
    assert found.mean == pytest.approx(0.5)
