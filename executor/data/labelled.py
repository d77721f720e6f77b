"""Labelled samples: text in a folder per class or a table, images in .npz or .npy, scikit-learn's digits.

A sample's split is told by a hash of its content; a file of its own may hold validation or test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from executor.data.base import Dataset, Rows, fingerprint
from executor.data.rows import SUFFIXES, columns
from executor.data.shares import TEST, TRAIN, VALIDATION, splits
from planner.errors import Fault, InputError

BYTES = 256
PADDING = 0  # the id behind a text that is shorter than the sequence; no UTF-8 text has this byte
Shares = tuple[float | Path, float | Path]
Sample = tuple[str, str]


def labelled_text(path: Path, fields: tuple[str, str], seq_len: int, shares: Shares) -> Dataset:
    """Byte ids [samples, seq_len], cut or padded, labels [samples], and which tokens are there [samples, seq_len].

    `path` is a folder with one of texts for each class, or a table with the columns `fields` (text, label).
    """
    samples = [_samples(path, fields)]
    where = splits((text.encode() for text, _ in samples[0]), *_given(shares))
    parts = [[samples[0][i] for i in np.flatnonzero(where == split)] for split in (TRAIN, VALIDATION, TEST)]
    for split, share in zip((VALIDATION, TEST), shares, strict=True):
        if isinstance(share, Path):
            parts[split] = _samples(share, fields)
    classes = sorted({label for part in parts for _, label in part})
    _enough(path, len(parts[TRAIN]), len(classes))
    made = [encoded(part, classes, seq_len) for part in parts]
    long = sum(len(text.encode()) > seq_len for part in parts for text, _ in part)
    return dataset("labelled-text", made, tuple(classes), vocabulary=BYTES, facts={"cut_to_seq_len": long})


def arrays(path: Path, shares: Shares) -> Dataset:
    """Images [samples, …] as fp32 and labels [samples] of an .npz, or of a folder with images.npy and labels.npy.

    Whole-number images are taken as 0 to 255 and scaled to 0 to 1.
    """
    return _images("arrays", *_stored(path), shares, str(path), more={1: shares[0], 2: shares[1]})


def digits(shares: Shares) -> Dataset:
    """scikit-learn's 1,797 handwritten digits [1, 8, 8] (Alpaydin 1998, UCI), from 0 to 1."""
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  optional
    except ModuleNotFoundError:
        raise InputError(Fault("data.kind", "digits need scikit-learn: pip install scikit-learn", "digits")) from None
    found = load_digits()
    images = (found.images / 16.0).astype(np.float32)[:, None]
    return _images("digits", images, found.target.astype(np.int64), shares, "digits", more={})


def _images(
    kind: str, images: NDArray[Any], labels: NDArray[np.int64], shares: Shares, name: str, more: dict[int, Any]
) -> Dataset:
    where = splits((image.tobytes() for image in images), *_given(shares))
    parts = [(images[where == split], labels[where == split]) for split in (TRAIN, VALIDATION, TEST)]
    for split, share in more.items():
        if isinstance(share, Path):
            parts[split] = _stored(share)
    classes = tuple(str(each) for each in range(int(max(each.max(initial=0) for _, each in parts)) + 1))
    _enough(name, len(parts[TRAIN][0]), len(classes))
    return dataset(kind, parts, classes)


def dataset(
    kind: str,
    parts: Sequence[tuple[NDArray[Any], ...]],
    classes: tuple[str, ...],
    vocabulary: int = 0,
    facts: Any = None,
) -> Dataset:
    """The data set of the arrays of each split."""
    train, validation, test = (Rows(part) for part in parts)
    return Dataset(
        kind,
        "classification",
        train,
        validation,
        test,
        fingerprint(np.ascontiguousarray(array).tobytes() for part in parts for array in part),
        vocabulary=vocabulary,
        classes=classes,
        shape=parts[0][0].shape[1:],
        facts={"samples": [len(part[0]) for part in parts], "classes": list(classes), **(facts or {})},
    )


def _given(shares: Shares) -> list[float]:
    return [each if isinstance(each, float) else 0.0 for each in shares]


def _samples(path: Path, fields: tuple[str, str]) -> list[Sample]:
    """(text, label) of every sample, in order of the names."""
    if path.is_dir():
        files = sorted(each for each in path.glob("*/*") if each.is_file())
        if not files:
            raise InputError(Fault(str(path), "expected one folder for each class, with its texts in it"))
        return [(each.read_text("utf-8", errors="replace"), each.parent.name) for each in files]
    if path.suffix not in SUFFIXES:
        raise InputError(Fault(str(path), f"expected a folder of classes or a table ({', '.join(SUFFIXES)})"))
    return [(text, label) for text, label in columns(path, *fields)]


def encoded(part: Sequence[Sample], classes: Sequence[str], seq_len: int) -> tuple[NDArray[Any], ...]:
    """Byte ids [samples, seq_len], cut or padded, labels [samples], which tokens are there [samples, seq_len]."""
    ids = np.full((len(part), seq_len), PADDING, dtype=np.int64)
    there = np.zeros((len(part), seq_len), dtype=np.int64)
    for row, (text, _) in enumerate(part):
        data = np.frombuffer(text.encode()[:seq_len] or b" ", dtype=np.uint8)
        ids[row, : len(data)], there[row, : len(data)] = data, 1
    known = {name: number for number, name in enumerate(classes)}
    return ids, np.array([known[label] for _, label in part], dtype=np.int64), there


def _stored(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images and labels of one place."""
    try:
        if path.is_dir():
            images, labels = (np.load(path / f"{name}.npy", allow_pickle=False) for name in ("images", "labels"))
        else:
            with np.load(path, allow_pickle=False) as found:
                images, labels = found["images"], found["labels"]
    except KeyError as error:
        raise InputError(Fault(str(path), f"expected the arrays images and labels: {error.args[0]}")) from None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            Fault(str(path), f"expected an .npz, or a folder with images.npy and labels.npy: {error}")
        ) from None
    if (
        len(images) != len(labels)
        or labels.ndim != 1
        or not np.issubdtype(labels.dtype, np.integer)
        or labels.min(initial=0) < 0
    ):
        expected = f"expected one label from 0 for each of the {len(images)} images"
        raise InputError(Fault(str(path), expected, f"{labels.dtype}{list(labels.shape)}"))
    scale = 255.0 if np.issubdtype(images.dtype, np.integer) else 1.0
    return (images / scale).astype(np.float32), labels.astype(np.int64)


def _enough(where: object, samples: int, classes: int) -> None:
    if samples == 0 or classes < 2:
        raise InputError(
            Fault(str(where), "expected samples of at least two classes to train on", f"{samples} of {classes}")
        )
