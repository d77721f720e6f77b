"""The data module: every sample once an epoch, splits that stay, formats and their faults."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from executor.data import Order, load
from executor.data.masked import IGNORED, MASK
from executor.data.shares import TEST, TRAIN, VALIDATION, splits
from executor.training.sections import Data
from planner.errors import InputError


@pytest.mark.parametrize("ranks", [1, 3, 4])
def test_no_sample_is_dropped_or_repeated(ranks):
    """Over two epochs every sample comes twice, once in each, on any number of ranks and through any restart."""
    order, batch = Order(50, seed=3), 12
    drawn = []
    for start in range(0, 100, batch):  # the last batch is cut here alone: a training would go on
        share = np.array_split(np.arange(start, min(start + batch, 100)), ranks)
        drawn += [int(n) for rank in share if len(rank) for n in Order(50, 3).numbers(rank[0], rank[-1] + 1)]
    assert Counter(drawn[:50]) == Counter(range(50)) == Counter(drawn[50:])
    assert drawn[:50] != drawn[50:]
    assert drawn[30:60] == order.numbers(30, 60).tolist()
    assert Order(50, 4).numbers(0, 50).tolist() != drawn[:50]


def test_splits_are_told_by_content():
    """A sample's split stays when others come; equal samples are together; the shares are about as asked."""
    samples = [str(number).encode() for number in range(4000)]
    found = splits(samples, 0.1, 0.2)
    assert found.tolist() == splits(samples[::-1], 0.1, 0.2).tolist()[::-1]
    counts = Counter(found.tolist())
    assert counts[VALIDATION] == pytest.approx(400, abs=80)
    assert counts[TEST] == pytest.approx(800, abs=100)
    assert set(splits([b"same"] * 5, 0.3, 0.3).tolist()) <= {TRAIN, VALIDATION, TEST}
    assert len(set(splits([b"same"] * 5, 0.3, 0.3).tolist())) == 1
    assert set(splits(samples, 0.0, 0.0).tolist()) == {TRAIN}


def test_text_becomes_windows(tmp_path):
    """Windows follow each other and each has the byte behind it; what is left over is told."""
    text = bytes(range(1, 200)) * 20
    (tmp_path / "one.txt").write_bytes(text)
    found = load(Data("text", path=tmp_path, seq_len=16, validation=0.0, test=0.0), 0)
    (rows,) = found.train.take(np.array([0, 1, len(found.train) - 1]))
    assert rows.shape == (3, 17)
    assert rows[0, -1] == rows[1, 0] == text[16]
    assert len(found.train) == (len(text) - 1) // 16
    assert found.facts["bytes_behind_the_last_window"][0] == len(text) - 16 * len(found.train)


def test_text_splits_share_nothing(tmp_path):
    """Of many files whole ones are held out; a file of its own may be the validation split."""
    for number in range(40):
        (tmp_path / f"{number}.txt").write_bytes(bytes([number + 1]) * 100)
    found = load(Data("text", path=tmp_path, seq_len=10, validation=0.2, test=0.2), 0)
    seen = [{*np.unique(each.take(np.arange(len(each)))[0])} - {10} for each in (found.train, found.validation)]
    assert all(seen)
    assert not seen[0] & seen[1]
    own = tmp_path / "held_out.md"
    own.write_bytes(b"held out " * 20)
    given = load(Data("text", path=tmp_path, seq_len=10, validation=own, test=0.0), 0)
    assert bytes(given.validation.take(np.array([0]))[0][0].astype(np.uint8)).startswith(b"held out")


def test_masked_windows_hide_what_is_to_be_guessed():
    """Labels are the tokens where something is to be guessed, most of it hidden, the same in every epoch."""
    data = Data("python", objective="masked-language-model", seq_len=64)
    found = load(data, 5)
    ids, labels = found.train.take(np.arange(200))
    there = labels != IGNORED
    assert there.mean() == pytest.approx(0.15, abs=0.03)
    assert there.any(1).all()
    assert (ids[there] == MASK).mean() == pytest.approx(0.8, abs=0.05)
    assert (ids[~there] != MASK).all()
    again = load(data, 5).train.take(np.array([7]))
    assert np.array_equal(again[0][0], ids[7])
    assert not np.array_equal(load(data, 6).train.take(np.array([7]))[1][0], labels[7])


ROWS = [{"text": f"{word} {number}", "label": word} for number in range(30) for word in ("spam", "ham")]


def written(folder, form):
    """A labelled data set in one of the forms."""
    if form == "folder":
        for number, row in enumerate(ROWS):
            (folder / "all" / row["label"]).mkdir(parents=True, exist_ok=True)
            (folder / "all" / row["label"] / f"{number}.txt").write_text(row["text"], encoding="utf-8")
        return folder / "all"
    path = folder / f"rows.{form}"
    if form == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    elif form == "csv":
        lines = ["text,label", *(f'"{row["text"]}",{row["label"]}' for row in ROWS)]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("form", ["folder", "jsonl", "csv", "parquet"])
def test_labelled_text_is_the_same_in_every_form(tmp_path, form):
    """A folder per class and the three kinds of tables give the same samples: ids, labels, which tokens are there."""
    found = load(Data("labelled-text", path=written(tmp_path, form), seq_len=12), 0)
    assert found.classes == ("ham", "spam")
    sizes = [len(each) for each in (found.train, found.validation, found.test)]
    assert sum(sizes) == len(ROWS)
    ids, labels, there = found.train.take(np.arange(sizes[0]))
    texts = {
        (bytes(row[mask == 1].astype(np.uint8)).decode(), found.classes[label])
        for row, label, mask in zip(ids, labels, there, strict=True)
    }
    assert texts <= {(row["text"], row["label"]) for row in ROWS}
    assert len(texts) == sizes[0]


def test_arrays_are_scaled_and_labelled(tmp_path):
    """Images of whole numbers become 0 to 1; an .npz and a folder of .npy hold the same."""
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez(tmp_path / "both.npz", images=images, labels=labels)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    found = load(Data("arrays", path=tmp_path / "both.npz"), 0)
    assert found.fingerprint == load(Data("arrays", path=tmp_path), 0).fingerprint
    values, _ = found.train.take(np.arange(len(found.train)))
    assert values.dtype == np.float32
    assert 0.9 < values.max() <= 1.0
    assert found.classes == ("0", "1", "2")


def test_digits_and_passages_are_built_in():
    """Both come without files; comments and docstrings come without their marks."""
    pytest.importorskip("sklearn")
    digits = load(Data("digits"), 0)
    assert len(digits.train) + len(digits.validation) + len(digits.test) == 1797
    assert digits.shape == (1, 8, 8)
    passages = load(Data("passages", seq_len=64), 0)
    assert passages.classes == ("code", "comment", "docstring")
    ids, labels, there = passages.train.take(np.arange(len(passages.train)))
    assert ids.shape == there.shape == (len(labels), 64)
    assert min(Counter(labels.tolist()).values()) > 1000
    assert not any(row[0] in b"#" for row in ids[labels == 1])


@pytest.mark.parametrize(
    ("name", "content", "data", "expected"),
    [
        ("a.jsonl", '{"text": "x"}', {"kind": "labelled-text"}, "has no column 'label'"),
        ("a.jsonl", "{", {"kind": "labelled-text"}, "line 1: is not valid JSON"),
        ("a.csv", "text,labels\nx,y", {"kind": "labelled-text"}, "did you mean 'labels'?"),
        ("a.txt", "x", {"kind": "labelled-text"}, "expected a folder of classes or a table"),
        ("a.npz", "x", {"kind": "arrays"}, "expected an .npz"),
        ("a.txt", "short", {"kind": "text"}, "holds too little text"),
        ("a.txt", "long enough " * 20, {"kind": "text", "seq_len": 8, "test": 0.5}, "no sample of the data falls"),
    ],
)
def test_what_is_no_data_is_told(tmp_path, name, content, data, expected):
    """Every way in which a file may not be what the recipe says is one sentence."""
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load(replace(Data("text"), path=tmp_path / name, **data), 0)
    assert expected in str(caught.value)


def test_a_missing_file_is_told():
    """A path that isn't there is named."""
    with pytest.raises(InputError, match="no such file or folder"):
        load(Data("text", path=Path("nowhere")), 0)
