"""Columns of a table in a file: .jsonl, .csv, or .parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from planner.errors import Fault, InputError, nearest

SUFFIXES = (".jsonl", ".csv", ".parquet")


def column(path: Path, name: str) -> list[str]:
    """One column as text; InputError when a row lacks it."""
    return [found for (found,) in columns(path, name)]


def columns(path: Path, *names: str) -> list[tuple[str, ...]]:
    """The named columns of every row as text, in order; InputError names the first row that lacks one."""
    found = []
    for number, row in enumerate(_rows(path), 1):
        for name in names:
            if row.get(name) is None:
                close = nearest(name, [str(each) for each in row])
                raise InputError(Fault(f"{path}: row {number}", f"has no column {name!r}", nearest=close))
        found.append(tuple(str(row[name]) for name in names))
    if not found:
        raise InputError(Fault(str(path), "has no rows"))
    return found


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from csv.DictReader(file)
        else:
            yield from _lines(path)
    except OSError as error:
        raise InputError(Fault(str(path), f"can't be read: {error.strerror or error}")) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(Fault(str(path), f"is not such a table: {error}")) from None


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(Fault(f"{path}: line {number}", f"is not valid JSON: {error}")) from None
        if not isinstance(row, dict):
            raise InputError(Fault(f"{path}: line {number}", "expected a JSON object", row))
        yield row


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet  # noqa: PLC0415  optional
    except ModuleNotFoundError:
        raise InputError(Fault(str(path), "needs pyarrow to be read: pip install pyarrow")) from None
    try:
        table = parquet.read_table(path)
    except ArrowInvalid as error:
        raise InputError(Fault(str(path), f"is not a parquet file: {error}")) from None
    yield from table.to_pylist()
