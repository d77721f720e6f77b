"""Routing traces: read from three kinds of file, refused by row, halved by sequence."""

import json

import numpy as np
import pytest

from planner.errors import InputError
from planner.placement.base import Grid, Trace
from planner.placement.io import read
from tests.planner.placement import toys

EXPERTS, GPUS = 6, 4
IDS = np.stack([np.arange(16).reshape(8, 2) % EXPERTS, np.arange(16)[::-1].reshape(8, 2) % EXPERTS])
GOOD = {"ids": IDS, "src": np.arange(8) % GPUS, "seq": np.arange(8) // 2, "layers": np.array([3, 5])}


def saved(tmp_path, **arrays):
    """An .npz of GOOD with these arrays in place of its own; None leaves one out."""
    path = tmp_path / "trace.npz"
    np.savez(path, **{name: array for name, array in {**GOOD, **arrays}.items() if array is not None})
    return path


def refused(path, *words):
    """Reading fails, and the message has all the words."""
    with pytest.raises(InputError) as caught:
        read(path, EXPERTS, GPUS)
    assert [word for word in words if word not in str(caught.value)] == []


def with_entry(place, value, array=IDS):
    """A copy with one entry changed."""
    changed = array.copy()
    changed[place] = value
    return changed


def test_a_trace_is_read(tmp_path):
    """Ids, sources, sequences and numbers of the layers arrive as they were saved, in whatever integers."""
    found = read(saved(tmp_path, ids=IDS.astype(np.uint8)), EXPERTS, GPUS)
    assert np.array_equal(found.ids, IDS)
    assert np.array_equal(found.src, GOOD["src"])
    assert np.array_equal(found.seq, GOOD["seq"])
    assert found.layers == (3, 5)
    assert (found.tokens, found.experts) == (8, EXPERTS)


def test_one_layer_needs_no_axis_and_sequences_are_optional(tmp_path):
    """[tokens, topk] is one layer; without seq and layers the trace is still one."""
    found = read(saved(tmp_path, ids=IDS[0], seq=None, layers=None), EXPERTS, GPUS)
    assert found.ids.shape == (1, 8, 2)
    assert found.seq is None
    assert found.layers == ()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"ids": with_entry((1, 3, 0), 6)}, ("ids[1, 3]", "expert ids 0 to 5", "[6, ")),
        ({"ids": with_entry((0, 2, 1), -1)}, ("ids[0, 2]", "-1")),
        ({"ids": with_entry((0, 4), 3)}, ("ids[0, 4]", "distinct", "[3, 3]")),
        ({"ids": np.zeros((2, 8, 2), dtype=int)}, ("ids[0, 0]", "ids[0, 4]", "11 more rows")),
        ({"ids": IDS.astype(float)}, ("ids", "expected integers", "float64")),
        ({"ids": with_entry((0, 0, 0), np.nan, IDS.astype(float))}, ("ids", "expected integers")),
        ({"ids": IDS[:, :, :0]}, ("ids", "[layers, tokens, topk]", "(2, 8, 0)")),
        ({"ids": IDS[:0]}, ("ids", "none of them 0", "(0, 8, 2)")),
        ({"ids": IDS[0, 0]}, ("ids", "[layers, tokens, topk]", "(2,)")),
        ({"ids": None}, ("ids", "is missing")),
        ({"src": None}, ("src", "is missing")),
        ({"src": with_entry(5, 4, GOOD["src"])}, ("src[5]", "source GPU 0 to 3", "4")),
        ({"src": with_entry(1, -1, GOOD["src"])}, ("src[1]", "-1")),
        ({"src": np.full(8, 9)}, ("src[0]", "3 more tokens")),
        ({"src": np.arange(7) % GPUS}, ("src", "one entry for each of 8 tokens", "(7,)")),
        ({"src": np.zeros(8)}, ("src", "expected integers", "float64")),
        ({"src": np.zeros(8, dtype=bool)}, ("src", "expected integers", "bool")),
        ({"seq": np.arange(9)}, ("seq", "one entry for each of 8 tokens")),
        ({"seq": np.zeros(8, dtype=int)}, ("2 sequences", "held out")),
        ({"layers": np.array([1])}, ("layers", "2 distinct numbers")),
        ({"layers": np.array([1, 1])}, ("layers", "2 distinct numbers")),
        ({"ids": IDS[:, :2], "src": np.zeros(2, dtype=int), "seq": None}, ("at least 4 tokens",)),
    ],
)
def test_a_bad_trace_is_refused_by_row(tmp_path, arrays, words):
    """The place, what is expected there and what stands there are all said."""
    refused(saved(tmp_path, **arrays), "trace.npz", *words)


def test_all_faults_are_told_at_once(tmp_path):
    """A wrong id, a row with an expert twice and a wrong source are three lines of one message."""
    ids = with_entry((0, 1, 0), 99)
    ids[1, 6] = 2
    refused(saved(tmp_path, ids=ids, src=with_entry(3, 8, GOOD["src"])), "ids[0, 1]", "ids[1, 6]", "src[3]")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    """Text, half a file, an array that is not in an archive, objects: one sentence each, no traceback."""
    whole = saved(tmp_path).read_bytes()
    path = tmp_path / "broken.npz"
    for content in (b"no zip at all", whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        refused(path, "broken.npz", "readable .npz")
    np.savez(path, ids=np.array([{}], dtype=object), src=np.zeros(1, dtype=int))
    refused(path, "broken.npz", "readable .npz")
    with path.open("wb") as file:
        np.save(file, IDS)
    refused(path, "broken.npz", "readable .npz")


def test_a_missing_file_and_an_unknown_kind_are_refused(tmp_path):
    """The file's name, and the kinds that are read."""
    refused(tmp_path / "none.npz", "none.npz", "no such file")
    other = tmp_path / "trace.csv"
    other.write_text("1,2\n", encoding="utf-8")
    refused(other, "trace.csv", ".npz or .jsonl")


def lines(tmp_path, rows):
    """A .jsonl file of these rows; a string stands as it is."""
    path = tmp_path / "trace.jsonl"
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def routed(**changed):
    """Rows of a router trace: two layers, two ranks, one step, two tokens each."""
    rows = [
        {"step": 7, "rank": rank, "layer": layer, "top_indices": [[rank, 2 + layer], [4, 5 - rank - 2 * layer]]}
        for layer in (1, 2)
        for rank in (0, 1)
    ]
    rows[-1].update(changed)
    return rows


def test_a_router_trace_is_read(tmp_path):
    """Rows of a rank are its tokens, ranks are sources, a rank's tokens of a step a sequence."""
    found = read(lines(tmp_path, routed()), EXPERTS, GPUS)
    assert found.layers == (1, 2)
    assert found.ids.tolist() == [[[0, 3], [4, 3], [1, 3], [4, 2]], [[0, 4], [4, 1], [1, 4], [4, 0]]]
    assert found.src.tolist() == [0, 0, 1, 1]
    assert found.seq.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (routed(rank=9), ("rank 9",)),
        ([{**row, "rank": 5} if row["rank"] == 1 else row for row in routed()], ("source GPU 0 to 3", "5")),
        (routed(top_indices=[[1, 2]]), ("same tokens and topk",)),
        (routed(top_indices=[[1, 2, 3], [3, 4, 5]]), ("same tokens and topk",)),
        (routed(top_indices=[[1, 1], [3, 4]]), ("ids[1, 2]", "distinct", "[1, 1]")),
        (routed(top_indices=[[1, 6], [3, 4]]), ("ids[1, 2]", "0 to 5", "[1, 6]")),
        (routed(top_indices=[[1, "x"], [3, 4]]), ("layer 2, step 7, rank 1", "top_indices")),
        (routed(top_indices=[[1], [3, 4]]), ("layer 2, step 7, rank 1", "top_indices")),
        (routed(top_indices=[]), ("layer 2, step 7, rank 1", "top_indices")),
        (routed()[:-1], ("layer 2, step 7, rank 1", "top_indices")),
        ([*routed(), "{half"], ("line 5", "layer and top_indices or tpe")),
        (routed(top_indices=[[1, 2.5], [3, 4]]), ("layer 2, step 7, rank 1", "top_indices")),
        (routed(top_indices=[[1, 10**30], [3, 4]]), ("layer 2, step 7, rank 1", "top_indices")),
        (routed(step="seven"), ("line 4", "whole numbers")),
        (routed(rank=None), ("line 4", "whole numbers")),
        (routed(rank=10**30), ("line 4", "whole numbers")),
        ([*routed(), routed()[1]], ("line 5", "repeats")),
        ([*routed(), "[" * 100_000], ("line 5", "expected an object")),
        ([*routed(), {"rank": 0}], ("line 5", "layer and top_indices or tpe")),
        ([*routed(), [1, 2]], ("line 5", "layer and top_indices or tpe")),
        ([""], ("has no rows",)),
    ],
)
def test_a_bad_router_trace_is_refused(tmp_path, rows, words):
    """Which line, or which layer, step and rank, and what is expected there."""
    refused(lines(tmp_path, rows), "trace.jsonl", *words)


def test_text_that_is_not_utf8_is_refused(tmp_path):
    """The byte is named."""
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b'{"layer": 1}\n\xff\xfe')
    refused(path, "trace.jsonl", "UTF-8", "byte 13")


def counted(**changed):
    """Rows of tokens per expert: one layer, two iterations."""
    rows = [{"iter": number, "layer": 4, "tpe": [1, 0, 3, 4, 0, 2]} for number in (10, 20)]
    rows[-1].update(changed)
    return rows


def test_tokens_per_expert_become_loads(tmp_path):
    """Loads alone: one expert a token, in the proportion of the counts; iterations are the sequences."""
    found = read(lines(tmp_path, counted()), EXPERTS, GPUS)
    assert found.layers == (4,)
    assert found.ids.shape[2] == 1
    share = toys.loads(found.ids, EXPERTS) / found.tokens
    assert share == pytest.approx([0.1, 0.0, 0.3, 0.4, 0.0, 0.2], abs=1e-4)
    assert np.unique(found.seq).size == 2


def test_counts_of_ranks_are_summed(tmp_path):
    """A row per rank in tpe means the same load."""
    apart = read(lines(tmp_path, counted(tpe=[[1, 0, 1, 4, 0, 0], [0, 0, 2, 0, 0, 2]])), EXPERTS, GPUS)
    assert np.array_equal(apart.ids, read(lines(tmp_path, counted()), EXPERTS, GPUS).ids)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (counted(tpe=[1, 2, 3]), ("layer 4, iter 20", "expected 6 counts")),
        (counted(tpe=[1, 0, 3, 4, 0, -2]), ("layer 4, iter 20", "expected 6 counts")),
        (counted(tpe=[1, 0, 3, 4, 0, 10**400]), ("layer 4, iter 20", "expected 6 counts")),
        (counted(tpe="many"), ("layer 4, iter 20", "expected 6 counts")),
        (counted(tpe=[1, 0, 3, 4, 0, True]), ("layer 4, iter 20", "expected 6 counts")),
        ([*counted(), '{"iter": 30, "layer": 4, "tpe": [NaN, 0, 3, 4, 0, 1]}'], ("layer 4, iter 30", "6 counts")),
        (counted(tpe=[0] * 6), ("layer without tokens",)),
        (counted(layer=5), ("every layer in every iteration",)),
        ([*counted(), {"layer": "five", "tpe": [1]}], ("line 3", "layer and top_indices or tpe")),
    ],
)
def test_bad_counts_are_refused(tmp_path, rows, words):
    """Which layer and iteration, and what is expected."""
    refused(lines(tmp_path, rows), "trace.jsonl", *words)


def test_halves_never_share_a_sequence():
    """Both halves have every layer, together all tokens, and no sequence is in both; the seed decides which."""
    trace = toys.trace(8, 2, Grid(2, 2), tokens=400, layers=2)
    plan, test = trace.halves(3)
    assert plan.tokens + test.tokens == trace.tokens
    assert set(plan.seq) & set(test.seq) == set()
    assert abs(np.unique(plan.seq).size - np.unique(test.seq).size) <= GPUS
    assert np.array_equal(plan.ids, trace.halves(3)[0].ids)
    assert not np.array_equal(plan.ids, trace.halves(4)[0].ids)


@pytest.mark.parametrize("seed", range(4))
def test_halves_have_as_many_tokens_of_each_source(seed):
    """Sequences of very different lengths: a source's tokens in the two halves differ by one of its sequences."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 200, size=90)
    seq, source = np.repeat(np.arange(90), size), rng.integers(6, size=90)
    trace = Trace(np.zeros((1, seq.size, 1), dtype=np.int64), source[seq], 1, seq)
    plan, test = (np.bincount(part.src, minlength=6) for part in trace.halves(seed))
    longest = np.array([size[source == gpu].max() for gpu in range(6)])
    assert (np.abs(plan - test) <= longest).all()
    assert np.abs(plan - test).sum() <= 0.2 * np.minimum(plan, test).sum()


def test_without_sequences_tokens_are_halved():
    """Every token is its own sequence."""
    plan, test = Trace(IDS, GOOD["src"], EXPERTS).halves(0)
    assert (plan.tokens, test.tokens) == (4, 4)
