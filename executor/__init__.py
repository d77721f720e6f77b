"""Runs a plan for real: the only floor that may import torch, an optional dependency (the `executor` extra)."""

from importlib.util import find_spec

__all__ = ["available"]


def available() -> bool:
    """Whether torch is installed here, found without importing it."""
    return find_spec("torch") is not None
