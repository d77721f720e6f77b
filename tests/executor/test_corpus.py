import numpy as np
import pytest

from executor.corpus import load
from planner.errors import InputError


def test_the_text_is_the_source_of_python_and_the_same_each_time():
    """Bytes of the standard library, decoded they are code; loading again gives the same."""
    corpus = load(64, seed=0)
    assert corpus.windows > 10_000
    text = bytes(corpus.text[:200_000].tolist()).decode(errors="replace")
    assert "def " in text
    assert "import " in text
    assert load(64, seed=0).fingerprint == corpus.fingerprint
    assert np.array_equal(load(64, seed=0).sequences(5, 9), corpus.sequences(5, 9))
    assert not np.array_equal(load(64, seed=1).sequences(5, 9), corpus.sequences(5, 9))


@pytest.fixture
def small(tmp_path):
    """Forty files of known bytes; the windows of the training text are few enough to list."""
    for number in range(40):
        (tmp_path / f"m{number:02d}.py").write_bytes(bytes([65 + number]) * 50)
    return load(10, seed=3, folder=tmp_path)


def test_an_epoch_draws_each_window_once(small):
    """No repeat and no drop, in the first epoch and in the second, which has another order."""
    epochs = [small.sequences(i * small.windows, (i + 1) * small.windows) for i in range(2)]
    for epoch in epochs:
        starts = sorted(map(tuple, epoch.tolist()))
        windows = [tuple(small.text[i * 10 : i * 10 + 11].tolist()) for i in range(small.windows)]
        assert starts == sorted(windows)
    assert not np.array_equal(epochs[0], epochs[1])


def test_ranks_and_steps_cut_the_same_stream(small):
    """However a batch is shared, and wherever a run is taken up, the sequences are those of one process."""
    whole = small.sequences(0, 24)
    shared = np.concatenate([small.sequences(start, start + 3) for start in range(0, 24, 3)])
    assert np.array_equal(whole, shared)
    across = small.sequences(small.windows - 2, small.windows + 2)
    assert np.array_equal(across[2:], small.sequences(small.windows, small.windows + 2))


def test_held_out_files_are_never_trained_on(small):
    """Every twentieth file is in the other half, whole."""
    held_out = {65 + 19, 65 + 39}
    assert set(small.held_out.tolist()) - {10} == held_out
    assert held_out & set(small.text.tolist()) == set()
    assert set(small.held_out_sequences(3).flatten().tolist()) <= held_out | {10}


def test_too_little_text_is_told(tmp_path):
    """A folder without enough source is an input error with its path."""
    (tmp_path / "one.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(InputError, match="too little Python source"):
        load(64, seed=0, folder=tmp_path)
