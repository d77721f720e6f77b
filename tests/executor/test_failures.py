import pytest

from executor.failures import (
    DesynchronisedError,
    DivergedError,
    NotSavedError,
    OutOfMemoryRankError,
    cause,
    told,
)

ECHO = (
    "Traceback (most recent call last):\n  ...\nexecutor.failures.DesynchronisedError: all_reduce (data, call 3) failed"
)


def raised(error):
    """The traceback of an error as a rank sends it."""
    return f"Traceback (most recent call last):\n  ...\n{type(error).__module__}.{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (MemoryError(), OutOfMemoryRankError, "out of memory in step 7"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 B"), OutOfMemoryRankError, "9 B"),
        (RuntimeError("Resource temporarily unavailable"), OutOfMemoryRankError, "out of memory in step"),
        (
            RuntimeError("[gloo/unbound_buffer.cc:84] Timed out waiting 2000ms for recv operation to complete"),
            DesynchronisedError,
            "all_gather (tensor, call 5) timed out in step 7: Timed out waiting 2000ms",
        ),
        (RuntimeError("[gloo/pair.cc:525] Connection closed by peer [127.0.0.1]:5"), DesynchronisedError, "failed"),
        (DivergedError("the loss is nan"), DivergedError, "the loss is nan"),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
)
def test_an_error_of_torch_becomes_one_of_ours(error, kind, words):
    """Memory and network errors are known by their text; the operation and the step are named; others stay."""
    found = told(error, 7, "all_gather (tensor, call 5)")
    assert type(found) is kind
    assert words in str(found)


def test_a_dead_rank_is_the_cause_and_not_its_echo():
    """When one process was killed the others only saw their connection close."""
    text = cause({0: ECHO, 1: "the process ended with code -9", 2: ECHO})
    assert text == "rank 1: the process was killed by SIGKILL, as the kernel does when memory runs out"
    assert "code 3" in cause({0: ECHO, 1: "the process ended with code 3"})


@pytest.mark.parametrize("error", [OutOfMemoryRankError("out of memory"), ValueError("bug")])
def test_a_named_cause_goes_before_echoes(error):
    """The rank that failed by itself is named alone."""
    text = cause({0: ECHO, 3: raised(error)})
    assert text.startswith("rank 3: ")
    assert str(error) in text


def test_ranks_that_lost_each_other_are_all_told():
    """With nothing but failed collectives each rank's own operation is shown, equal ones together."""
    other = ECHO.replace("all_reduce", "all_gather")
    assert cause({0: ECHO, 1: other, 2: ECHO}) == (
        "rank 0, 2: all_reduce (data, call 3) failed; rank 1: all_gather (data, call 3) failed"
    )


def test_the_first_error_of_a_chain_counts_and_the_first_line_of_it():
    """torch wraps what a stage raised, and its messages go on below the line that says what happened."""
    chain = raised(ValueError("first\n    second\nthird")) + "\n\nThe above ...\n\n" + raised(RuntimeError("wrapped"))
    assert cause({1: chain}) == "rank 1: ValueError: first"
    ours = raised(ValueError("first")) + "\n\nThe above ...\n\n" + raised(NotSavedError("disk full"))
    assert cause({1: ours}) == "disk full"


@pytest.mark.parametrize("error", [NotSavedError("rank 2 couldn't write"), DivergedError("the loss is nan")])
def test_what_all_ranks_tell_alike_is_told_once(error):
    """A failed checkpoint or a diverged loss is nobody's own."""
    assert cause({0: raised(error), 1: ECHO, 2: raised(error)}) == str(error)


def test_what_a_stage_raised_is_seen_through_its_wrapping():
    """A failed collective inside a pipeline stage is still one."""
    outer = RuntimeError("failed to run forward")
    outer.__cause__ = RuntimeError("gloo: Connection closed by peer")
    assert isinstance(told(outer, 3, "all_reduce"), DesynchronisedError)


def test_a_silent_rank_is_named_beside_those_that_waited():
    """A rank that hangs tells nothing; the others tell what they waited for."""
    text = cause({0: ECHO, 1: "the rank gave no answer"})
    assert text == "rank 0: all_reduce (data, call 3) failed; rank 1: the rank gave no answer"
