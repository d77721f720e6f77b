"""The data set of a recipe's [data] table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from executor.data.base import Dataset
from executor.data.labelled import arrays, digits, labelled_text
from executor.data.masked import Masked
from executor.data.passages import passages
from executor.data.text import Windows, text
from executor.training.sections import Data
from planner.errors import Fault, InputError


def load(data: Data, seed: int) -> Dataset:
    """Read and split; InputError for what can't be read, and for a split that is asked for and empty.

    `seed` of what is hidden from a masked language model.
    """
    shares: Any = (data.validation, data.test)
    path = data.path or Path()
    if data.kind in {"python", "text"}:
        found = text(data.path if data.kind == "text" else None, data.pattern, data.text, data.seq_len, shares)
    elif data.kind == "passages":
        found = passages(data.seq_len, *_numbers(data))
    elif data.kind == "labelled-text":
        found = labelled_text(path, (data.text, data.label), data.seq_len, shares)
    else:
        found = arrays(path, shares) if data.kind == "arrays" else digits(shares)
    empty = [
        Fault(f"data.{name}", "no sample of the data falls into this split; take a larger share or more data", share)
        for name, split, share in (("validation", found.validation, shares[0]), ("test", found.test, shares[1]))
        if share != 0.0 and len(split) == 0
    ]
    if empty:
        raise InputError(*empty)
    return _masked(found, seed) if data.objective == "masked-language-model" else found


def _numbers(data: Data) -> list[float]:
    """The shares of a kind that no file can hold a split of; paths are refused with the recipe."""
    return [each if isinstance(each, float) else 0.0 for each in (data.validation, data.test)]


def _masked(found: Dataset, seed: int) -> Dataset:
    splits: dict[str, Any] = {
        name: Masked(split, seed)
        for name in ("train", "validation", "test")
        if isinstance(split := getattr(found, name), Windows)
    }
    return replace(found, objective="masked-language-model", **splits)
