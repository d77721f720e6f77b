"""Everything the planner raises on purpose, and its exit code.

InputError (3)       an input file or value is wrong: all faults at once (from `hwprofiles.faults`)
NoPlan (4)           nothing legal fits: what removed how many, and the nearest change
CheckFailed (5)      a comparison is over its tolerance
"""

from __future__ import annotations

from hwprofiles.faults import Fault, InputError, nearest

__all__ = ["EXIT", "CheckFailed", "Fault", "InputError", "NoPlan", "nearest"]


class NoPlan(Exception):
    """No feasible plan exists; the message says which rule or bound removed how many and what would help."""


class CheckFailed(Exception):
    """A measured quantity is out of tolerance."""


EXIT: dict[type[Exception], int] = {InputError: 3, NoPlan: 4, CheckFailed: 5}
