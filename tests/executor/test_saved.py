import json

import pytest

from executor.saved import complete, found, part, place, prune, sweep


def write(folder, step, content=b"weights"):
    """A complete checkpoint of one file."""
    writing = part(folder, step)
    writing.mkdir(parents=True)
    (writing / "__0_0.distcp").write_bytes(content)
    return complete(folder, step, {"sequences": 8 * step})


def test_a_checkpoint_is_there_once_it_is_complete(tmp_path):
    """While it is written it doesn't count; then it has its files, its sizes and what the run gave."""
    part(tmp_path, 3).mkdir()
    assert found(tmp_path) == []
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    saved = write(tmp_path, 3)
    assert found(tmp_path) == [saved]
    assert (saved.step, saved.manifest["sequences"]) == (3, 24)
    assert saved.manifest["files"] == {"__0_0.distcp": 7}
    assert json.loads((saved.path / "manifest.json").read_text(encoding="utf-8")) == saved.manifest


@pytest.mark.parametrize("damage", ["cut", "gone", "manifest", "no manifest"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    """A file cut short or missing, or a manifest that isn't one: the next older checkpoint is the newest."""
    write(tmp_path, 1)
    newest = write(tmp_path, 2).path
    if damage == "cut":
        (newest / "__0_0.distcp").write_bytes(b"we")
    elif damage == "gone":
        (newest / "__0_0.distcp").unlink()
    elif damage == "manifest":
        (newest / "manifest.json").write_text("{", encoding="utf-8")
    else:
        (newest / "manifest.json").unlink()
    assert [saved.step for saved in found(tmp_path)] == [1]


def test_only_the_newest_stay(tmp_path):
    """keep-last-k removes the oldest, and nothing that isn't a checkpoint."""
    for step in (1, 2, 10, 11):
        write(tmp_path, step)
    (tmp_path / "notes").mkdir()
    prune(tmp_path, 2)
    assert [saved.step for saved in found(tmp_path)] == [11, 10]
    assert not place(tmp_path, 1).exists()
    assert (tmp_path / "notes").exists()


def test_a_folder_that_is_not_there_holds_none(tmp_path):
    """The first run of a folder finds nothing to go on from."""
    assert found(tmp_path / "new") == []
