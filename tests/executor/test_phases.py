import pytest

from executor.phases import Work, events, phases, work
from executor.spans import Span


def span(kind, start, end, phase="", cpu=None):
    """A span whose CPU time is its length unless said otherwise."""
    spent = end - start if cpu is None else cpu
    return Span(kind, start, end, spent, spent, phase)


STEP = [
    span("all_gather", 1.0, 1.5, "tensor"),
    span("forward", 0.0, 2.0),
    span("wait", 2.0, 5.0, "pipeline", cpu=0.25),
    span("all_reduce", 6.0, 6.5, "data"),
    span("backward", 5.0, 8.0),
    span("weight gradient", 8.0, 9.0),
    span("clip", 9.0, 9.25),
    span("optimizer", 9.25, 10.0),
]


def test_each_second_counts_once():
    """Collectives inside an action are theirs; B and W are backward; clipping is of the optimizer."""
    found = work(STEP, "cpu")
    assert found.seconds == {
        "forward": 1.5,
        "tensor": 0.5,
        "pipeline": 0.25,
        "data": 0.5,
        "backward": 3.5,
        "optimizer": 1.0,
    }
    assert (found.running, found.busy) == (9.0, 6.0)
    assert work(STEP, "cuda").seconds["pipeline"] == 3.0


def test_work_of_other_threads_is_that_of_the_transfers_behind():
    """Gradients and messages that gloo moves while the main thread computes share what its threads took by bytes."""
    scatter = Span("reduce_scatter", 1.0, 1.1, 0.25, 0.1, "data", bytes=300)
    send = Span("send", 3.0, 3.1, 0.1, 0.1, "pipeline", bytes=100)
    backward = Span("backward", 0.0, 3.0, 3.75, 2.6)
    found = work([backward, scatter, send], "cpu").seconds
    assert found["backward"] == pytest.approx(2.5)
    assert found["data"] == pytest.approx(0.25 + 0.75)
    assert found["pipeline"] == pytest.approx(0.1 + 0.25)
    assert sum(found.values()) == pytest.approx(3.75 + 0.1)


def test_phases_are_the_mean_over_ranks_of_the_median_over_steps():
    """One slow step doesn't count; the bubble is what the busiest rank's pipeline took less a rank's own work."""
    fast = Work({"forward": 1.0, "data": 2.0}, 10.0, 6.0)
    slow = Work({"forward": 9.0}, 10.0, 6.0)
    other = Work({"forward": 3.0}, 8.0, 8.0)
    found = phases([[fast, fast, slow], [other, other, other]], pipelined=True)
    assert found.forward == 2.0
    assert found.collectives == {"data": 1.0}
    assert found.bubble == pytest.approx(((10 - 6) + (10 - 8)) / 2)
    assert phases([[fast], [other]], pipelined=False).bubble == 0.0


def test_events_are_relative_to_the_step():
    """In order of time, actions on one stream and collectives on that of their axis."""
    found = events(2, STEP, 0.0)
    assert [event.kind for event in found[:3]] == ["forward", "all_gather", "wait"]
    assert (found[0].stream, found[1].stream, found[0].rank) == ("compute", "tensor", 2)
    assert found[-1].end == 10.0
