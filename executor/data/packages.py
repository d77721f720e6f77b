"""Real labelled text that is always there: windows of the standard library's source, labelled by their package.

A whole file belongs to one split, told by a hash of its name, so what is tested is text of files that were not seen.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np

from executor.data.base import Dataset
from executor.data.labelled import Sample, dataset, encoded
from executor.data.shares import TEST, TRAIN, VALIDATION, splits
from executor.data.text import BYTES
from planner.errors import Fault, InputError

PACKAGES = ("asyncio", "email", "http", "importlib", "json", "logging", "multiprocessing", "unittest", "urllib", "xml")


def packages(seq_len: int, validation: float, test: float) -> Dataset:
    """Byte ids [samples, seq_len], labels [samples] and which tokens are there; ten classes."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [each for name in PACKAGES for each in sorted((folder / name).rglob("*.py")) if "test" not in each.parts]
    names = [str(each.relative_to(folder)) for each in files]
    where = splits((name.encode() for name in names), validation, test)
    parts: list[list[Sample]] = [[], [], []]
    for path, name, split in zip(files, names, where, strict=True):
        text = path.read_text("utf-8", errors="replace")
        label = Path(name).parts[0]
        parts[split] += [(text[start : start + seq_len], label) for start in range(0, len(text), seq_len)]
    classes = sorted({label for _, label in parts[TRAIN]})
    if classes != sorted(PACKAGES):
        expected = f"the standard library in {folder} lacks packages, or these shares leave one without training files"
        raise InputError(Fault("data.kind", expected, "packages"))
    made = [encoded(parts[split], classes, seq_len) for split in (TRAIN, VALIDATION, TEST)]
    facts = {"files": [int(np.sum(where == split)) for split in (TRAIN, VALIDATION, TEST)]}
    return dataset("packages", made, tuple(classes), vocabulary=BYTES, facts=facts)
