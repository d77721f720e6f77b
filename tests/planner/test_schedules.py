import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwprofiles.faults import InputError
from planner.formula import BOOK
from planner.schedules import SCHEDULES, get
from planner.schedules.base import Action, Schedule
from planner.simulate.replay import replay, stage_durations

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
times = st.floats(1e-4, 10.0)


@st.composite
def legal_shapes(draw: st.DrawFn, schedule: Schedule) -> tuple[int, int, int]:
    """(pp, vpp, micro_batches) that the schedule allows, micro-batches fewer and more than stages."""
    pp = draw(st.integers(1, 8))
    vpp = draw(st.integers(2, 4)) if schedule.chunked else 1
    micro_batches = pp * draw(st.integers(1, 4)) if schedule.chunked else draw(st.integers(1, 30))
    assume(not schedule.broken(pp, vpp, micro_batches))
    return pp, vpp, micro_batches


def uniform(pp: int, vpp: int, seconds: float) -> np.ndarray:
    """A whole stage of `seconds` cut into equal chunks [pp, vpp]."""
    return np.full((pp, vpp), seconds / vpp)


@every_schedule
@settings(max_examples=60, deadline=None)
@given(data=st.data(), forward=times, backward=times)
def test_closed_bubble_is_the_idle_time_of_the_replay(schedule, data, forward, backward):
    """On equal stages every rank idles, in a replayed step, exactly as long as the closed form says."""
    pp, vpp, micro_batches = data.draw(legal_shapes(schedule))
    durations = stage_durations(schedule, uniform(pp, vpp, forward), uniform(pp, vpp, backward))
    timeline = replay(schedule.program(pp, vpp, micro_batches), durations)
    work = micro_batches * (forward + backward)
    bubble = schedule.bubble(pp, vpp, micro_batches, forward, backward)
    assert timeline.makespan == pytest.approx(work + bubble, rel=1e-9)
    assert timeline.busy == pytest.approx([work] * pp, rel=1e-9)


@every_schedule
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_closed_in_flight_is_the_peak_of_the_replay(schedule, data):
    """Each rank holds, at its peak, exactly the micro-batches that the closed form says."""
    pp, vpp, micro_batches = data.draw(legal_shapes(schedule))
    durations = stage_durations(schedule, uniform(pp, vpp, 1.0), uniform(pp, vpp, 2.0))
    timeline = replay(schedule.program(pp, vpp, micro_batches), durations)
    assert timeline.in_flight == tuple(schedule.in_flight(pp, vpp, micro_batches, rank) for rank in range(pp))


@every_schedule
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_each_rank_does_each_piece_of_work_once(schedule, data):
    """Every micro-batch crosses every chunk of every rank once in each kind of work, and nothing else is run."""
    pp, vpp, micro_batches = data.draw(legal_shapes(schedule))
    kinds = "FBW" if schedule.splits_backward else "FB"
    wanted = sorted(Action(kind, i, c) for kind in kinds for i in range(micro_batches) for c in range(vpp))
    program = schedule.program(pp, vpp, micro_batches)
    assert [sorted(actions) for actions in program] == [wanted] * pp


@every_schedule
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_closed_sends_are_the_hops_of_the_busiest_rank(schedule, data):
    """The busiest rank sends one activation for each of its chunks whose successor lies on another rank."""
    pp, vpp, micro_batches = data.draw(legal_shapes(schedule))
    last = pp * vpp - 1
    hops = [
        sum(a.kind == "F" and pp > 1 and a.chunk * pp + rank < last for a in actions)
        for rank, actions in enumerate(schedule.program(pp, vpp, micro_batches))
    ]
    assert schedule.sends(pp, vpp, micro_batches) == max(hops)


@every_schedule
def test_a_batch_gives_the_numbers_of_single_plans_bit_for_bit(schedule):
    """The closed forms and the rules of a million plans are those of one plan, to the last bit."""
    rng = np.random.default_rng(7)
    pp, vpp, micro_batches, rank = (rng.integers(1, high, 200) for high in (17, 5, 40, 17))
    forward, backward = rng.random(200), rng.random(200)
    rows = list(zip(*(a.tolist() for a in (pp, vpp, micro_batches, rank, forward, backward)), strict=True))
    bubbles = schedule.bubble(pp, vpp, micro_batches, forward, backward)
    assert bubbles.tolist() == [schedule.bubble(p, v, m, f, b) for p, v, m, _, f, b in rows]
    held = schedule.in_flight(pp, vpp, micro_batches, rank)
    assert held.tolist() == [schedule.in_flight(p, v, m, r) for p, v, m, r, _, _ in rows]
    sent = schedule.sends(pp, vpp, micro_batches)
    assert sent.tolist() == [schedule.sends(p, v, m) for p, v, m, *_ in rows]
    legal = np.logical_and.reduce([row.holds(pp, vpp, micro_batches) for row in schedule.legal])
    assert legal.tolist() == [not schedule.broken(p, v, m) for p, v, m, *_ in rows]


@every_schedule
def test_every_schedule_is_in_the_formula_book(schedule):
    """Each closed form has a unit and a source, and the schedule names its paper."""
    qualified = f"{type(schedule).__module__.removeprefix('planner.')}.{type(schedule).__name__}"
    assert BOOK[f"{qualified}.bubble"].unit == "s"
    assert schedule.source in BOOK[f"{qualified}.bubble"].source
    assert BOOK[f"{qualified}.in_flight"].unit == "micro-batches"
    assert "arXiv" in schedule.source


def test_1f1b_runs_in_the_published_order():
    """Narayanan 2021, figure 4 (top): the first of four stages warms up with three, the last with none."""
    program = SCHEDULES["1f1b"].program(4, 1, 8)
    assert _spell(program[0]) == "F0 F1 F2 F3 B0 F4 B1 F5 B2 F6 B3 F7 B4 B5 B6 B7"
    assert _spell(program[3]) == "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7"


def test_interleaved_runs_in_the_published_order():
    """Narayanan 2021, figure 4 (bottom): rounds of four micro-batches a chunk, chunks backward from the last."""
    program = SCHEDULES["interleaved"].program(4, 2, 8)
    warmup = "F0 F1 F2 F3 F0' F1' F2' F3' F4 F5"
    assert _spell(program[0]) == (
        f"{warmup} F6 B0' F7 B1' F4' B2' F5' B3' F6' B0 F7' B1 B2 B3 B4' B5' B6' B7' B4 B5 B6 B7"
    )
    assert _spell(program[3][:8]) == "F0 F1 F2 F3 F0' B0' F1' B1'"


def test_zero_bubble_holds_weight_gradients_back_on_later_ranks():
    """Qi 2023, section 2.1: rank r puts each weight gradient off by r backward passes, so that all hold as much."""
    program = SCHEDULES["zb-h1"].program(3, 1, 4)
    assert _spell(program[0]) == "F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3"
    assert _spell(program[2]) == "F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3"


def test_zero_bubble_idles_a_third_of_1f1b_when_all_work_is_equal():
    """Qi 2023, section 2.1: with F, B and W of the same length ZB-H1 has a third of the bubble of 1F1B."""
    shape = (8, 1, 32, 1.0, 2.0)
    assert SCHEDULES["zb-h1"].bubble(*shape) * 3 == SCHEDULES["1f1b"].bubble(*shape)


def test_broken_requirements_are_all_told_with_their_numbers():
    """An illegal plan gets one sentence for each requirement that it breaks, and a legal one none."""
    assert SCHEDULES["interleaved"].broken(4, 1, 6) == [
        "interleaved: vpp = 1 must be at least 2",
        "interleaved: micro_batches = 6 must be a multiple of pp = 4",
    ]
    assert SCHEDULES["gpipe"].broken(1, 1, 6) == ["gpipe: pp = 1 must be at least 2 (without a pipeline use 1f1b)"]
    assert SCHEDULES["1f1b"].broken(1, 1, 6) == []


@pytest.mark.parametrize("micro_batches", [1, 8])
def test_only_1f1b_stands_for_a_step_without_pipeline(micro_batches):
    """With pp = 1 all schedules would be the same, so that exactly one of them is legal."""
    assert [name for name, schedule in SCHEDULES.items() if not schedule.broken(1, 1, micro_batches)] == ["1f1b"]


def test_an_unknown_schedule_is_refused_with_the_nearest_name():
    """A misspelt schedule is an input error that names the one meant."""
    with pytest.raises(InputError, match="did you mean 'interleaved'"):
        get("interleave")
    assert get("gpipe").name == "gpipe"


def _spell(actions: list[Action]) -> str:
    """F3 is the forward pass of micro-batch 3 on chunk 0, F3' on chunk 1."""
    return " ".join(f"{a.kind}{a.micro_batch}" + "'" * a.chunk for a in actions)
