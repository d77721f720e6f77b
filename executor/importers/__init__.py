"""Importers of what others measured: the format is told from the content, never from the name."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from executor.importers import kineto, megatron, nccl, torchtitan
from executor.importers.base import Imported, Log, LogStep
from executor.measure import measurement
from planner.errors import Fault, InputError

__all__ = ["Imported", "Log", "LogStep", "load"]

KNOWN = "nccl-tests (text or JSON), a PyTorch profiler trace, a Megatron-LM or torchtitan log, rows of `plan calibrate`"
LARGEST = 2**30  # B; a longer trace is not of a few steps


def load(path: Path) -> Imported:
    """The content of a file; InputError when it can't be read or is none of KNOWN."""
    text, where = _text(path), str(path)
    data = _json(text)
    if nccl.is_json(data):
        return Imported(tuple(nccl.read_json(data, where)))
    if kineto.is_trace(data):
        return Imported(tuple(kineto.read(data, where)))
    if text.startswith('{"') and '"sizes"' in text[:10_000]:
        return Imported(tuple(measurement.load(text, where)))
    if nccl.is_text(text):
        return Imported(tuple(nccl.read_text(text, where)))
    if megatron.is_log(text):
        return Imported(log=megatron.read(text))
    if torchtitan.is_log(torchtitan.COLOUR.sub("", text)):
        return Imported(log=torchtitan.read(text))
    raise InputError(Fault(where, f"is not known; expected {KNOWN}"))


def _text(path: Path) -> str:
    if path.is_dir():
        raise InputError(Fault(str(path), "is a directory; expected a file"))
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(Fault(str(path), "is larger than 1 GiB; profile fewer steps"))
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise InputError(Fault(str(path), "does not exist")) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(Fault(str(path), f"can't be read: {error}")) from None


def _json(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
