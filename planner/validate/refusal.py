"""Why a published run is not predicted."""

from __future__ import annotations


class Refused(Exception):
    """The row can't be predicted; the message is the reason shown to the user."""
