"""What can go wrong while ranks train, each in one sentence: who, what, when. Needs no torch.

A rank raises one of these; the parent, which sees the failures of all ranks, tells the cause and not its echoes.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping

ENDED = re.compile(r"the process ended with code (-?\d+)")
LAST_LINE = re.compile(r"^(?:\w+\.)*(\w+)(?:: (.*))?$")
NETWORK = re.compile(r"gloo|nccl|closed by peer|reset by peer|timed out|timeout|broken pipe", re.IGNORECASE)
# the last is what a thread that finds no memory for its stack says
NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|std::bad_alloc|resource temporarily unavailable", re.IGNORECASE
)
SOURCE_LINE = re.compile(r"^\[[^\]]*\.(cc|cpp|h):\d+\] ?(\. )?")  # of torch and gloo, in front of what they say
ADVICE = ". This is typically caused"
TIMED_OUT = re.compile(r"timed out|timeout", re.IGNORECASE)


class RankError(Exception):
    """A failure of this rank, told in one sentence."""


class OutOfMemoryRankError(RankError):
    """The rank asked for memory that was not there."""


class NotSavedError(RankError):
    """A checkpoint couldn't be written; the earlier ones are untouched."""


class DivergedError(RankError):
    """The loss or the weights are no longer numbers."""


class DesynchronisedError(RankError):
    """A collective failed or timed out: another rank never came, or is gone."""


SHARED = (NotSavedError, DivergedError)
"""What all ranks tell alike, with the ranks to blame in the sentence where there are any."""
CAUSES = (OutOfMemoryRankError, *SHARED)
"""What is a cause wherever it appears; all else may be the echo of another rank's end."""


def told(error: BaseException, step: int, operation: str) -> BaseException:
    """The error as one of ours; `operation` names the collective that ran last on this rank."""
    if isinstance(error, RankError):
        return error
    while error.__cause__ is not None:  # the pipeline wraps what a stage raised
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    line = SOURCE_LINE.sub("", text.splitlines()[0]).split(ADVICE)[0]
    if isinstance(error, MemoryError) or NO_MEMORY.search(text):
        return OutOfMemoryRankError(f"out of memory in step {step}: {line}")
    if isinstance(error, RuntimeError) and NETWORK.search(text):
        happened = "timed out" if TIMED_OUT.search(text) else "failed"
        return DesynchronisedError(f"{operation} {happened} in step {step}: {line}")
    return error


def cause(failures: Mapping[int, str]) -> str:
    """One sentence for the failures by rank (tracebacks, or how the process ended) of one run."""
    stories = {rank: _story(text) for rank, text in sorted(failures.items())}
    killed = [rank for rank, (kind, _) in stories.items() if kind == "killed"]
    if killed:
        return _each(stories, killed)
    shared = {cls.__name__ for cls in SHARED}
    if same := [sentence for kind, sentence in stories.values() if kind in shared]:
        return same[0]
    named = {cls.__name__ for cls in CAUSES}
    first = [rank for rank, (kind, _) in stories.items() if kind in named]
    other = [rank for rank, (kind, _) in stories.items() if kind != DesynchronisedError.__name__]
    return _each(stories, first or other or list(stories))


def _each(stories: Mapping[int, tuple[str, str]], ranks: list[int]) -> str:
    """The stories of these ranks; ranks with the same story share it."""
    shared: dict[str, list[str]] = {}
    for rank in ranks:
        shared.setdefault(stories[rank][1], []).append(str(rank))
    return "; ".join(f"rank {', '.join(group)}: {text}" for text, group in shared.items())


def _story(text: str) -> tuple[str, str]:
    """Kind and sentence of one rank's failure."""
    line = _head(text)
    ended = ENDED.search(line)
    if ended:
        return "killed", _ending(int(ended[1]))
    match = LAST_LINE.match(line)
    if match is None:  # how the pool tells of a rank that is silent
        return DesynchronisedError.__name__, line
    kind, sentence = match[1], match[2] or match[1]
    known = {each.__name__ for each in (*CAUSES, DesynchronisedError)}
    return kind, sentence if kind in known else f"{kind}: {sentence}"


def _head(text: str) -> str:
    """The line that says what happened: of our own errors the last, of others the first in a chain of tracebacks.

    A message may go on below its first line.
    """
    lines = text.strip().splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("Traceback (")]
    heads = [next((line for line in lines[start + 1 :] if not line.startswith(" ")), "") for start in starts]
    if not heads:
        return lines[-1]
    ours = f"{RankError.__module__}."
    return heads[-1] if heads[-1].startswith(ours) else heads[0]


def _ending(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    name = signal.Signals(-code).name
    hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return f"the process was killed by {name}{hint}"
