"""The user's cluster files: what they may say, and how each fault is answered."""

import pytest

from hwprofiles import load
from hwprofiles.faults import InputError

GOOD = """
name = "ours"
gpu = "h100-sxm"
node = "dgx-h100"
fabric = "ib-ndr-rail"
gpus = { value = 64, source = "stated: our order" }
max_gpus = { value = 128, source = "ours: page 3" }
pue = { value = 1.2, source = "measured: meter" }
price = { value = "2.1 USD/h", source = "ours" }

[sources]
ours = { title = "Our contract", date = "2026-11" }
"""


def write(tmp_path, text):
    """A cluster file with `text`."""
    path = tmp_path / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(path, gpus=None):
    """The sentences with which the file at `path` is refused."""
    with pytest.raises(InputError) as caught:
        load.cluster(path, gpus)
    return [str(fault) for fault in caught.value.faults]


def test_a_cluster_file_names_parts_of_the_catalogue(tmp_path):
    """Parts come from the catalogue; size, price and PUE from the file, with its own sources."""
    cluster = load.cluster(write(tmp_path, GOOD))
    assert cluster.gpu == load.gpu("h100")
    assert cluster.gpus == 64
    assert cluster.price == pytest.approx(2.1 / 3600)
    assert cluster.tiers[-1].size == 64
    assert cluster.sources["max_gpus"] == "Our contract, 2026-11; page 3"


def test_a_path_may_be_text(tmp_path):
    """A name that ends in .toml or has a slash is a file."""
    assert load.cluster(str(write(tmp_path, GOOD))).name == "ours"


def test_the_price_defaults_to_that_of_the_gpu():
    """A cluster without a price of its own costs what its GPU costs."""
    assert load.cluster("h100-superpod").price == load.gpu("h100").price


def test_a_part_may_be_a_table_of_the_file(tmp_path):
    """An inline GPU builds on a catalogue profile and states what differs; the node takes it on."""
    inline = '[gpu]\nname = "cut"\nbase = "h100-sxm"\ntdp = { value = "500 W", source = "ours" }\n[sources]'
    cluster = load.cluster(write(tmp_path, GOOD.replace('gpu = "h100-sxm"\n', "").replace("[sources]", inline)))
    assert cluster.gpu.tdp == 500
    assert cluster.gpu.matmul == load.gpu("h100").matmul
    assert cluster.node.gpu == "cut"


def test_a_cluster_may_build_on_another(tmp_path):
    """`base` takes a catalogue cluster and changes what the file states."""
    text = 'name = "more"\nbase = "h100-superpod"\npue = { value = 1.5, source = "stated: guess" }'
    cluster = load.cluster(write(tmp_path, text))
    assert (cluster.pue, cluster.gpus, cluster.node.name) == (1.5, 16384, "dgx-h100")


def test_the_gpu_defaults_to_that_of_the_node(tmp_path):
    """A cluster that names only a node has the node's GPU."""
    assert load.cluster(write(tmp_path, GOOD.replace('gpu = "h100-sxm"\n', ""))).gpu.name == "h100-sxm"


def test_all_faults_of_a_file_come_at_once(tmp_path):
    """Unknown, missing, unsourced, unitless and impossible entries, each with file and key, in one refusal."""
    path = write(
        tmp_path,
        """
        name = 3
        gpu = "h1000-sxm"
        node = "dgx-h100"
        fabrik = "ib-ndr-rail"
        gpus = 64
        max_gpus = { value = 128 }
        pue = { value = -1.2, source = "hearsay" }
        price = { value = 2.1, source = "stated: x" }
        """,
    )
    found = faults(path)
    expected = [":name", ":gpu", ":fabrik", ":gpus", ":max_gpus", ":pue", ":pue.source", ":price", ":fabric"]
    for key in expected:
        assert any(line.startswith((f"{path}{key} ", f"{path}{key}:")) for line in found), key
    assert any("did you mean 'h100-sxm'" in line for line in found)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("value = 1.2", "value = nan", "finite number"),
        ("value = 1.2", "value = inf", "finite number"),
        ("value = 1.2", "value = true", "finite number"),
        ("value = 1.2", 'value = "1.2"', "plain"),
        ("value = 64", "value = 64.5", "whole number"),
        ("value = 64", "value = 0", "positive"),
        ("value = 64", "value = -8", "positive"),
        ("value = 64", f"value = {10**400}", "positive"),
        ("value = 64", "value = 256", "max_gpus"),
        ('"2.1 USD/h"', '"2.1 GB/s"', "usd/s expected"),
        ('"2.1 USD/h"', "2.1", "text with a unit"),
        ('"stated: our order"', '"stated:"', "a key of [sources]"),
        ('"stated: our order"', '""', "source in quotes"),
        ('"stated: our order"', '"our"', "did you mean 'ours'"),
        ('node = "dgx-h100"', "node = 3", "name of a node"),
        ("pue = {", "pu = {", "did you mean 'pue'"),
        ("[sources]", "[sources.x]\n[source]", "not known"),
        ("value = 1.2,", "value = 1.2, unit = 'x',", "nothing else"),
    ],
)
def test_each_wrong_entry_is_named(tmp_path, old, new, sentence):
    """One wrong entry, one clear sentence, and the file's name in it."""
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    found = faults(path)
    assert any(sentence in line for line in found), found
    assert all(line.startswith(str(path)) for line in found)


def test_an_efficiency_above_one_is_refused(tmp_path):
    """Nothing runs above its peak."""
    wrong = '[gpu]\nname = "fast"\nbase = "h100-sxm"\nhbm_efficiency = { value = 1.1, source = "ours" }\n[sources]'
    path = write(tmp_path, GOOD.replace('gpu = "h100-sxm"\n', "").replace("[sources]", wrong))
    (line,) = faults(path)
    assert "gpu:hbm_efficiency" in line
    assert "at most 1" in line


def test_a_fabric_needs_the_parameters_of_its_kind(tmp_path):
    """An unknown generator and missing parameters are both told."""
    table = '[fabric]\nname = "f"\nbase = "roce-leaf-spine"\nkind = "rial"\n[sources]'
    path = write(tmp_path, GOOD.replace('fabric = "ib-ndr-rail"\n', "").replace("[sources]", table))
    assert any("did you mean 'rail'" in line for line in faults(path))
    path.write_text(path.read_text().replace("rial", "rail"))
    assert any("parameters.group_gpus: this key is missing" in line for line in faults(path))


def test_groups_of_a_fabric_nest(tmp_path):
    """A pod holds whole rail groups."""
    table = (
        '[fabric]\nname = "f"\nbase = "ib-ndr-rail"\n[fabric.parameters]\n'
        'pod_gpus = { value = 300, source = "ours" }\n[sources]'
    )
    path = write(tmp_path, GOOD.replace('fabric = "ib-ndr-rail"\n', "").replace("[sources]", table))
    (line,) = faults(path)
    assert "parameters.pod_gpus is 300: a multiple of parameters.group_gpus = 256" in line


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"name = = 3", "line 1"),
        (b"name = ", "line 1"),
        (b'name = "a"\n[broken', "line 2"),
        (b"name = '\xff'", "UTF-8"),
        (b"a = " + b"[" * 5000, "TOML"),
        (b"a = " + b"9" * 5000, "TOML"),
    ],
)
def test_a_file_that_is_no_toml_is_refused(tmp_path, content, sentence):
    """Empty files, broken TOML (with its line) and other encodings end in a sentence, not in a traceback."""
    path = tmp_path / "cluster.toml"
    path.write_bytes(content)
    (line,) = faults(path)
    assert sentence in line
    assert line.startswith(str(path))


def test_what_is_no_file_is_refused(tmp_path):
    """A missing file, a directory, a file over 10 MB and an impossible name."""
    assert "no such file" in faults(tmp_path / "nothing.toml")[0]
    assert "directory" in faults(tmp_path)[0]
    big = tmp_path / "big.toml"
    with big.open("wb") as file:
        file.truncate(10_000_001)
    assert "larger than 10.0 MB" in faults(big)[0]
    assert "file name" in faults("\0.toml")[0]


@pytest.mark.parametrize(
    ("gpus", "sentence"), [(200000, "at most 131072"), (12, "multiple of the node's 8"), (0, "positive"), (-8, "posi")]
)
def test_a_size_that_cannot_be_is_refused(gpus, sentence):
    """More than the largest size, broken nodes and nonsense are refused."""
    with pytest.raises(InputError, match=sentence):
        load.cluster("h100-superpod", gpus)


def test_part_of_one_node_is_fine():
    """Fewer GPUs than a node has make one small scale-up domain."""
    (tier,) = load.cluster("h100-superpod", 4).tiers
    assert tier.size == 4


def test_an_unknown_kind_is_refused():
    """`names` knows four kinds."""
    with pytest.raises(InputError, match="did you mean 'node'"):
        load.names("nod")


def test_numbers_are_listed_for_the_user(tmp_path):
    """`raw` gives value, unit, text and full citation, of catalogue entries and of files."""
    bandwidth = load.raw("gpu", "H100")["hbm_bandwidth"]
    assert (bandwidth.value, bandwidth.unit, bandwidth.text) == (3.35e12, "B/s", "3350 GB/s")
    assert "ml-engineering" in bandwidth.source
    assert load.raw("cluster", write(tmp_path, GOOD))["price"].source == "Our contract, 2026-11"
