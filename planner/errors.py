"""Everything the planner raises on purpose, and its exit code.

InputError (3)       an input file or value is wrong: all faults at once (from `hwprofiles.faults`)
NoPlan (4)           nothing legal fits: what removed how many, and the nearest change
CheckFailed (5)      a comparison is over its tolerance
RunFailed (6)        ranks that trained for real failed: which one, of what, and what is saved
"""

from __future__ import annotations

from hwprofiles.faults import Fault, InputError, nearest

__all__ = ["EXIT", "CheckFailed", "Fault", "InputError", "NoPlan", "RunFailed", "nearest"]


class NoPlan(Exception):
    """No feasible plan exists; the message says which rule or bound removed how many and what would help."""


class CheckFailed(Exception):
    """A measured quantity is out of tolerance."""


class RunFailed(Exception):
    """A run on real ranks failed; the message says which rank, of what, and where to go on from."""


EXIT: dict[type[Exception], int] = {InputError: 3, NoPlan: 4, CheckFailed: 5, RunFailed: 6}
