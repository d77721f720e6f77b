"""A bad input as a row: what is typed, what lies in the files, what the user must be told; and the check of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner.cli import main

SPARSE = b"sparse"  # the content that stands for a file over every limit
TOO_LARGE = 65 * 2**20  # bytes
BASE = ("llama3.1-8b", "--cluster", "h100-superpod", "--gpus", "64")
SEARCH, ESTIMATE = ("search", *BASE), ("estimate", *BASE)
OUT = ("--out", "out")


@dataclass(frozen=True)
class Bad:
    """`argv` must end with exit `code` and all `words` on stderr; `files` (path -> content) are written before."""

    argv: tuple[str, ...]
    code: int
    words: tuple[str, ...]
    files: Mapping[str, str | bytes] = field(default_factory=dict)


def write_files(bad: Bad, folder: Path) -> None:
    """Write the files of a row below `folder`."""
    for name, text in bad.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        if text == SPARSE:
            os.truncate(path, TOO_LARGE)


def listing(folder: Path) -> dict[str, int]:
    """Every path below a folder with its size."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*")}


def check(bad: Bad, folder: Path, capsys: Any) -> None:
    """Run a row in the current folder: exit code, words, no data, no traceback, no file changed or left."""
    write_files(bad, folder)
    before = listing(folder)
    capsys.readouterr()
    code = main(list(bad.argv))
    out, err = capsys.readouterr()
    assert (code, out) == (bad.code, ""), err
    assert [word for word in bad.words if word not in err] == [], err
    assert "Traceback" not in err
    assert code == 2 or all(line.startswith("plan: ") for line in err.splitlines()), err
    assert listing(folder) == before
