import json
import time
from itertools import pairwise

import numpy as np
import pytest

from planner.record import Check, Phases, Record, Step
from planner.schedules import SCHEDULES
from planner.schedules.base import Action
from planner.simulate.replay import DeadlockError, Slot, replay, stage_durations
from planner.simulate.trace import pipeline_events, trace

ONE_EACH = [[Action("F", 0, 0), Action("B", 0, 0)] for _ in range(2)]


def durations(forward: list[list[float]], backward: list[list[float]]) -> dict[str, np.ndarray]:
    """Durations of forward and backward [pp, vpp]."""
    return {"F": np.array(forward), "B": np.array(backward)}


def test_messages_and_unequal_stages_delay_the_work_that_waits_for_them():
    """Two unequal stages and a message time give the starts and ends computed by hand."""
    timeline = replay(ONE_EACH, durations([[1.0], [2.0]], [[3.0], [4.0]]), p2p=0.5)
    assert timeline.slots == (
        Slot(0, "F", 0, 0, 0.0, 1.0),
        Slot(0, "B", 0, 0, 8.0, 11.0),
        Slot(1, "F", 0, 0, 1.5, 3.5),
        Slot(1, "B", 0, 0, 3.5, 7.5),
    )
    assert (timeline.makespan, timeline.busy, timeline.idle) == (11.0, (4.0, 6.0), (7.0, 5.0))


def test_chunks_of_one_rank_need_no_message():
    """On a single rank the chunks follow each other without message time."""
    program = [[Action("F", 0, 0), Action("F", 0, 1), Action("B", 0, 1), Action("B", 0, 0)]]
    assert replay(program, durations([[1.0, 1.0]], [[2.0, 2.0]]), p2p=9.0).makespan == 6.0


def test_the_step_takes_its_longest_stage_as_often_as_there_are_micro_batches():
    """A slow last stage paces 1F1B: the others fill and drain around it."""
    forward, backward = np.array([[1.0], [1.0], [3.0]]), np.array([[2.0], [2.0], [6.0]])
    program = SCHEDULES["1f1b"].program(3, 1, 10)
    assert replay(program, stage_durations(SCHEDULES["1f1b"], forward, backward)).makespan == 10 * 9.0 + 2 * 3.0


def test_a_slow_micro_batch_is_slow_on_its_own():
    """Durations with an axis of micro-batches are used micro-batch by micro-batch."""
    forward = np.array([[[1.0, 5.0, 1.0]]])
    program = SCHEDULES["1f1b"].program(1, 1, 3)
    slots = replay(program, {"F": forward, "B": np.ones((1, 1))}).slots
    assert [slot.end - slot.start for slot in slots] == [1.0, 1.0, 5.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_no_action_runs_before_its_inputs_or_beside_another(schedule):
    """With random times, a rank does one thing at a time and never starts before the message has come."""
    pp, vpp, micro_batches, p2p = 4, 3 if schedule.chunked else 1, 8, 0.3
    rng = np.random.default_rng(3)
    times = stage_durations(schedule, rng.random((pp, vpp, micro_batches)), rng.random((pp, vpp, micro_batches)))
    slots = replay(schedule.program(pp, vpp, micro_batches), times, p2p).slots
    for before, after in pairwise(slots):
        assert before.rank != after.rank or before.end <= after.start
    when = {(s.kind, s.micro_batch, s.chunk * pp + s.rank): s for s in slots}
    for (kind, i, stage), slot in when.items():
        if kind == "F" and stage > 0:
            assert slot.start >= when["F", i, stage - 1].end + p2p
        if kind == "B" and stage < pp * vpp - 1:
            assert slot.start >= when["B", i, stage + 1].end + p2p
        if kind == "B":
            assert slot.start >= when["F", i, stage].end
        if kind == "W":
            assert slot.start >= when["B", i, stage].end


def test_slower_work_never_shortens_a_step():
    """Raising any one duration leaves the step as long or makes it longer."""
    schedule = SCHEDULES["interleaved"]
    program = schedule.program(4, 2, 8)
    forward = np.ones((4, 2))
    base = replay(program, stage_durations(schedule, forward, 2 * forward)).makespan
    for index in np.ndindex(4, 2):
        slower = forward.copy()
        slower[index] += 0.5
        assert replay(program, stage_durations(schedule, slower, 2 * forward)).makespan > base


def test_a_deadlock_names_the_ranks_and_what_each_waits_for():
    """Two ranks that wait for each other are both named with their action and the missing one."""
    program = [
        [Action("B", 0, 0), Action("F", 0, 0)],
        [Action("F", 0, 0), Action("B", 0, 0)],
    ]
    with pytest.raises(DeadlockError) as caught:
        replay(program, durations([[1.0], [1.0]], [[1.0], [1.0]]))
    assert str(caught.value) == (
        "the pipeline program deadlocks: "
        "rank 0 at B(micro-batch 0, chunk 0) waits for F(micro-batch 0, chunk 0) of rank 0; "
        "rank 1 at F(micro-batch 0, chunk 0) waits for F(micro-batch 0, chunk 0) of rank 0"
    )


def test_a_large_pipeline_is_replayed_in_milliseconds():
    """16 stages of 4 chunks over 128 micro-batches take about 50 ms; ten times that is a regression."""
    schedule = SCHEDULES["interleaved"]
    program, forward = schedule.program(16, 4, 128), np.ones((16, 4))
    begun = time.process_time()
    timeline = replay(program, stage_durations(schedule, forward, 2 * forward), 0.01)
    assert time.process_time() - begun < 0.5
    assert len(timeline.slots) == 2 * 16 * 4 * 128


def test_the_trace_of_a_replay_has_a_process_per_rank_and_microseconds():
    """Every slot becomes a complete event in µs on the process of its rank, and the processes are named."""
    made = trace(replay(ONE_EACH, durations([[1.0], [2.0]], [[3.0], [4.0]])))
    spans = [row for row in made["traceEvents"] if row["ph"] == "X"]
    assert [(row["pid"], row["name"], row["cat"]) for row in spans] == [
        (0, "F0", "forward"),
        (0, "B0", "backward"),
        (1, "F0", "forward"),
        (1, "B0", "backward"),
    ]
    assert [(row["ts"], row["dur"]) for row in spans] == [(0, 1e6), (7e6, 3e6), (1e6, 2e6), (3e6, 4e6)]
    names = [(row["name"], row["pid"], row["args"]["name"]) for row in made["traceEvents"] if row["ph"] == "M"]
    assert names == [
        ("process_name", 0, "rank 0"),
        ("process_name", 1, "rank 1"),
        ("thread_name", 0, "compute"),
        ("thread_name", 1, "compute"),
    ]
    assert json.loads(json.dumps(made)) == made


def test_a_record_is_json_of_the_promised_schema_and_draws_like_its_replay():
    """The record of a replay has the promised fields, survives JSON, and puts its spans where the replay does."""
    timeline = replay(ONE_EACH, durations([[1.0], [2.0]], [[3.0], [4.0]]))
    record = Record(
        origin="simulated",
        plan={"name": "small"},
        ranks=2,
        steps=(Step(step=0, loss=None, wall_s=timeline.makespan, cpu_s=timeline.busy),),
        phases=Phases(forward=1.5, backward=3.5, optimizer=0.0, collectives={"p2p": 0.0}, bubble=5.0),
        peak_memory_bytes=(1.0, 2.0),
        check=Check(loss_error=0.0, gradient_error=1e-7),
        events=pipeline_events(timeline),
    )
    read = json.loads(json.dumps(record.to_json()))
    assert {"schema_version", "origin", "plan", "ranks", "steps", "phases", "peak_memory_bytes", "check"} <= set(read)
    assert read["schema_version"] == 1
    assert read["steps"] == [{"step": 0, "loss": None, "wall_s": 10.0, "cpu_s": [4.0, 6.0]}]
    assert list(read["phases"]) == ["forward", "backward", "optimizer", "collectives", "bubble"]
    assert read["events"][1] == {"rank": 0, "stream": "compute", "kind": "backward", "start": 7.0, "end": 10.0}
    spans = [
        [(row["pid"], row["tid"], row["ts"], row["dur"], row["cat"]) for row in made["traceEvents"] if row["ph"] == "X"]
        for made in (trace(record), trace(timeline))
    ]
    assert spans[0] == spans[1]
