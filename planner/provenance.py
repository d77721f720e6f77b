"""Where the inputs of a result come from: names, content hashes, tool version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Fact:
    """One published finding: what was seen, on what, and where it is written."""

    text: str
    source: str


@cache
def tool_version() -> str:
    """Version of the installed distribution."""
    try:
        return metadata.version("myriad-planner")
    except metadata.PackageNotFoundError:
        return "unreleased"


def fingerprint(what: str, reference: str, content: object) -> dict[str, str]:
    """One row of provenance: the file's hash when `reference` is a file, else that of the resolved content."""
    path = Path(reference)
    data = path.read_bytes() if path.is_file() else repr(content).encode()
    return {"what": what, "name": reference, "sha256": hashlib.sha256(data).hexdigest()}
