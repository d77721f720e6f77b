"""Real labelled text that is always there: code, comments and docstrings of Python's standard library.

Comments and docstrings come without the marks that give them away, so they are told from each other by what they say.
A passage's split is told by a hash of its text.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from executor.data.base import Dataset
from executor.data.labelled import Sample, dataset, encoded
from executor.data.library import library
from executor.data.shares import TEST, TRAIN, VALIDATION, splits
from executor.data.text import BYTES

CLASSES = ("code", "comment", "docstring")
SHORTEST = 32  # characters
READ = 4 * 2**20  # bytes of source
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def passages(seq_len: int, validation: float, test: float) -> Dataset:
    """Byte ids [samples, seq_len], labels [samples] and which tokens are there; three classes."""
    samples = _samples(Path(sysconfig.get_path("stdlib")))
    where = splits((text.encode() for text, _ in samples), validation, test)
    parts = [[samples[i] for i in np.flatnonzero(where == split)] for split in (TRAIN, VALIDATION, TEST)]
    made = [encoded(part, CLASSES, seq_len) for part in parts]
    return dataset("passages", made, CLASSES, vocabulary=BYTES)


@cache
def _samples(folder: Path) -> list[Sample]:
    """Every passage once, in order of the files."""
    found: dict[str, str] = {}
    for _, data in library(folder, READ):
        text = data.decode("utf-8", "replace")
        for passage, label in (*_definitions(text), *_comments(text)):
            if len(passage) >= SHORTEST:
                found.setdefault(passage, label)
    return list(found.items())


def _definitions(text: str) -> Iterator[Sample]:
    """Docstrings, and the bodies of functions without them and without comments or indentation."""
    lines = [line.strip() for line in text.splitlines()]
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:  # samples of what doesn't parse
        return
    for node in nodes:
        if not isinstance(node, DEFINITIONS):
            continue
        prose = ast.get_docstring(node)
        if prose:
            yield prose, "docstring"
        body = node.body[1:] if prose else node.body
        if isinstance(node, ast.FunctionDef) and body:
            code = lines[body[0].lineno - 1 : body[-1].end_lineno]
            yield "\n".join(line for line in code if not line.startswith("#")), "code"


def _comments(text: str) -> Iterator[Sample]:
    """Blocks of lines that are comments, without their marks."""
    block: list[str] = []
    for line in (*text.splitlines(), ""):
        stripped = line.strip()
        if stripped.startswith("#"):
            block.append(stripped.lstrip("#! "))
        elif block:
            yield "\n".join(block), "comment"
            block = []
