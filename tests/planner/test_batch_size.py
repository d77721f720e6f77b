"""Tokens and steps against the batch, the stages of a ramp-up, and how both are written."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.batch_size import (
    Stage,
    critical_batch,
    parse_critical,
    parse_ramp,
    schedule,
    steps_to_target,
    tokens_to_target,
)
from planner.errors import InputError
from planner.explain.batch import batch
from planner.plan import prepare, training_json
from planner.strategy import Choices, Degrees, Workload

POSITIVE = st.floats(1e3, 1e12)


@given(POSITIVE, POSITIVE, POSITIVE)
def test_tokens_and_steps_trade_as_mccandlish_has_it(minimum, size, critical):
    """(S/S_min - 1)(E/E_min - 1) = 1 with S_min = E_min / B_crit, and tokens = steps · batch."""
    tokens, steps = tokens_to_target(minimum, size, critical), steps_to_target(minimum, size, critical)
    assert tokens == pytest.approx(steps * size)
    fewest = minimum / critical
    if 1e-6 < size / critical < 1e6:
        assert (steps / fewest - 1) * (tokens / minimum - 1) == pytest.approx(1.0, rel=1e-6)


def test_at_the_critical_batch_both_are_twice_the_least():
    """The meaning of the critical batch; arrays go through the same formula."""
    assert tokens_to_target(1e12, 8e6, 8e6) == 2e12
    assert steps_to_target(1e12, 8e6, 8e6) == 2 * 1e12 / 8e6
    both = tokens_to_target(1e12, np.array([0.0, 8e6]), 8e6)
    assert both.tolist() == [1e12, 2e12]


def test_the_critical_batch_by_loss_is_kaplans_line():
    """2.1e8 tokens at a loss of 1, 4.8 decades down a decade of loss; figure 10 has 1e6 near a loss of 3."""
    assert critical_batch(1.0) == 2.1e8
    assert critical_batch(10.0) == pytest.approx(2.1e8 / 10**4.8)
    assert 0.8e6 < critical_batch(3.0) < 1.3e6


def test_a_critical_batch_is_tokens_or_a_loss():
    """Both spellings, and the law that each is from."""
    assert parse_critical("8M") == (8e6, "as stated")
    tokens, law = parse_critical("loss:2")
    assert tokens == critical_batch(2.0)
    assert "arXiv:2001.08361" in law
    assert "loss 2" in law


@pytest.mark.parametrize("text", ["0", "8X", "loss:", "loss:nan", "loss:0.1", "loss:100", "gain:2", "1e30"])
def test_what_is_neither_is_refused(text):
    """Nothing else, and no loss that no language model has."""
    with pytest.raises(InputError, match="--critical-batch"):
        parse_critical(text)


def test_a_ramp_is_batches_and_their_ends():
    """Stages in order; a wrong piece, or one out of order, is a fault of its own."""
    assert parse_ramp("512@250B, 1024@3T") == (Stage(512, 250e9), Stage(1024, 3e12))
    for text, count in (("512", 1), ("a@1B,512@x", 2), ("512@2T,256@1T", 2), ("", 1), ("0@1B", 1)):
        with pytest.raises(InputError) as caught:
            parse_ramp(text)
        assert len(caught.value.faults) == count, text


def test_llama_3_ramps_as_published():
    """4M tokens until 252M, 8M until 2.87T, then 16M (Llama 3 405B): stages of so many tokens and steps."""
    work = Workload(8192, 2048, 15.6e12, ramp=(Stage(512, 252e6), Stage(1024, 2.87e12)))
    spent = work.spent()
    assert [stage.global_batch for stage in spent] == [512, 1024, 2048]
    assert [stage.tokens for stage in spent] == pytest.approx([252e6, 2.87e12 - 252e6, 15.6e12 - 2.87e12])
    assert [stage.steps for stage in spent] == [math.ceil(s.tokens / (s.global_batch * 8192)) for s in spent]


@given(st.floats(1e9, 1e13), st.integers(1, 4096), POSITIVE)
def test_a_run_without_a_ramp_is_one_stage(tokens, size, critical):
    """Its tokens are those of the law at its batch; without a critical batch just its tokens."""
    (only,) = schedule(tokens, 4096, (Stage(size),), critical)
    assert only.tokens == pytest.approx(tokens_to_target(tokens, size * 4096.0, critical))
    assert schedule(tokens, 4096, (Stage(size),), 0.0)[0].tokens == tokens


def test_small_batches_first_save_tokens_and_cost_steps():
    """Under a critical batch a ramp-up takes fewer tokens and more steps than the last batch alone."""
    ramped = Workload(4096, 4096, 1e12, 8e6, "x", (Stage(256, 1e11), Stage(1024, 5e11))).spent()
    plain = Workload(4096, 4096, 1e12, 8e6, "x").spent()
    assert sum(s.tokens for s in ramped) < sum(s.tokens for s in plain)
    assert sum(s.steps for s in ramped) > sum(s.steps for s in plain)


def test_a_run_that_ends_in_its_ramp_takes_no_more():
    """Stages that the run never reaches are left out."""
    spent = schedule(1e9, 1024, (Stage(8, 2e9), Stage(16)), 0.0)
    assert [(s.global_batch, s.tokens) for s in spent] == [(8, 1e9)]


@pytest.fixture(scope="module")
def plan():
    """A plan with a critical batch and a ramp-up."""
    work = Workload(4096, 512, 1e12, 2e6, "as stated", (Stage(128, 1e11), Stage(256, 4e11)))
    made = prepare("llama3.1-8b", "h100-superpod", 64, work, Choices(zero=2), "megatron-core")
    return replace(made, degrees=Degrees(64))


def test_each_stage_is_priced_with_its_own_batch(plan):
    """A quarter of the batch takes less time a step, but more than a quarter of it; totals are sums of the stages."""
    run = training_json(plan.setting, 8.0, plan.degrees)
    small, _, last = run["stages"]
    assert last["step_time_s"] == 8.0
    assert 0.0 < small["step_time_s"] < 8.0
    assert run["seconds"] == pytest.approx(sum(s["steps"] * s["step_time_s"] for s in run["stages"]))
    assert (run["steps"], run["tokens"]) == (
        sum(s["steps"] for s in run["stages"]),
        sum(s["tokens"] for s in run["stages"]),
    )


def test_the_words_say_law_source_and_stages(plan):
    """What is told: the ratio to the critical batch, the law, its limits, one sentence a stage."""
    found = batch(plan, 8.0)
    text = " ".join(found["words"])
    assert "arXiv:1812.06162" in text
    assert "arXiv:2410.21676" in text
    assert len(found["words"]) == 3 + 3
    assert found["run"]["tokens_over_least"] > 1.0
    middle = next(row for row in found["curve"] if row["batch"] == 2e6)
    assert (middle["tokens_over_least"], middle["steps_over_least"]) == (2.0, 2.0)
    plain = replace(plan, setting=replace(plan.setting, workload=Workload(4096, 512, 1e12)))
    assert batch(plain, 8.0) is None
