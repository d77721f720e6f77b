"""What is wrong with an input, told in one sentence per fault, all faults at once.

InputError
    The inputs can't be used: a tuple of `Fault`, each with the place, the value and what is expected.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass

_SHORT = reprlib.Repr()  # a value of a hostile file may be huge
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 200, 200


@dataclass(frozen=True)
class Fault:
    """One fault: `where` (file and key), `value` as found (None when absent), `expected`, `nearest` known name."""

    where: str
    expected: str
    value: object = None
    nearest: str | None = None

    def __str__(self) -> str:
        """The sentence shown to the user."""
        found = "" if self.value is None else f" is {_SHORT.repr(self.value)}:"
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"{self.where}{found or ':'} {self.expected}{hint}"


class InputError(Exception):
    """One or more faults in the input; `str(error)` has one line per fault."""

    def __init__(self, *faults: Fault) -> None:
        """Keep the faults in the order found."""
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when nothing is close."""
    pool = {candidate.lower(): candidate for candidate in known}
    match = difflib.get_close_matches(name.lower(), list(pool), n=1, cutoff=0.5)
    return pool[match[0]] if match else None
