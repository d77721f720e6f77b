import pytest

from tests.planner.bad_inputs import BASE, OUT, SPARSE, Bad, check

CONFIG = '{"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, '
CLUSTER = """
name = "mine"
node = "dgx-h100"
fabric = "ib-ndr-rail"
gpus = { value = 64, source = "stated: an example" }
max_gpus = { value = 1024, source = "stated: an example" }
pue = { value = 1.3, source = "stated: an example" }
"""
OWN_GPU = '[gpu]\nbase = "h100-sxm"\nhbm_capacity = { value = %s, source = "stated: an example" }\n'
MODEL = """
source = "an example"
layers = 32
hidden = 4096
vocab = 32000
heads = 32
kv_heads = 8
ffn = 14336
"""


def model(text, words, name="m.toml"):
    """A search with a model file of this text."""
    return Bad(("search", name, *BASE[1:], *OUT), 3, (name, *words), {name: text})


def cluster(text, words):
    """A search on a cluster file of this text."""
    return Bad(
        ("search", "llama3.1-8b", "--cluster", "c.toml", "--gpus", "64", *OUT), 3, ("c.toml", *words), {"c.toml": text}
    )


def capacity_of(text, words):
    """A cluster file whose own GPU has this HBM capacity."""
    return cluster(CLUSTER + OWN_GPU % text, ("hbm_capacity", *words))


TABLE = {
    # model files
    "model file that is missing": Bad(("models", "missing.json"), 3, ("missing.json", "no such file")),
    "half a model TOML": model(MODEL.replace("32000", ""), ("TOML", "line")),
    "empty model TOML": model("", ("layers", "hidden", "vocab", "source")),
    "negative size": model(MODEL.replace("4096", "-4096"), ("hidden", "-4096")),
    "several faults of a model": model(
        "laers = 3\n" + MODEL.replace("vocab = 32000", ""), ("laers", "layers", "vocab", "missing")
    ),
    "size as text": model(MODEL.replace("4096", '"4096"'), ("hidden", "'4096'")),
    "NaN in a model TOML": model(MODEL.replace("4096", "nan"), ("hidden", "nan")),
    "infinite model": model(MODEL.replace("32000", "inf"), ("vocab", "inf")),
    "endless layers": model(MODEL.replace("layers = 32", "layers = 1000000000"), ("layers", "1000000000")),
    "model TOML not in UTF-8": model(b'source = "\xff\xfe"', ("UTF-8", "byte")),
    "truncated config": model(CONFIG, ("JSON", "line 1"), "config.json"),
    "empty config": model("", ("JSON",), "config.json"),
    "config of an unknown family": model(
        '{"model_type": "lama9", "hidden_size": 8}', ("model_type", "'lama9'", "llama", "hidden_size"), "config.json"
    ),
    "config of a refused family": model('{"model_type": "mamba2"}', ("'mamba2'", "state-space"), "config.json"),
    "config with missing keys": model(CONFIG.rstrip(", ") + "}", ("vocab_size", "num_attention_heads"), "config.json"),
    "config with NaN": model(CONFIG + '"vocab_size": NaN}', ("NaN",), "config.json"),
    "config with a key twice": model(CONFIG + '"hidden_size": 1}', ("'hidden_size'", "twice"), "config.json"),
    "config that is a list": model("[1, 2]", ("JSON object", "list"), "config.json"),
    "config nested too deep": model("[" * 100_000, ("JSON",), "config.json"),
    "directory as a model": Bad(
        ("search", "folder.toml", *BASE[1:]), 3, ("folder.toml", "directory"), {"folder.toml/x": ""}
    ),
    "large model": Bad(("models", "big.json"), 3, ("big.json", str(2**26)), {"big.json": SPARSE}),
    # cluster files
    "unknown GPU in a cluster file": cluster(
        'gpu = "h100-sxn"\n' + CLUSTER, (":gpu", "'h100-sxn'", "did you mean 'h100-sxm'")
    ),
    "unknown node in a cluster file": cluster(
        CLUSTER.replace("dgx-h100", "dgx-h101"), (":node", "did you mean 'dgx-h100'")
    ),
    "hardware from half a file": Bad(
        ("hardware", "c.toml"), 3, ("c.toml", ":pue"), {"c.toml": CLUSTER.replace("1.3", '"x"')}
    ),
    "cluster file that is missing": Bad(
        ("search", BASE[0], "--cluster", "c.toml", "--gpus", "8"), 3, ("c.toml", "no such file")
    ),
    "half a cluster": cluster(CLUSTER[:-20], ("TOML", "line")),
    "empty cluster": cluster("", ("empty",)),
    "cluster of nothing but a name": cluster('name = "mine"', (":node", ":fabric", ":gpus", ":max_gpus", ":pue")),
    "cluster not in UTF-8": cluster(b"name = '\xff'", ("UTF-8", "byte 8")),
    "directory as a cluster": Bad(
        ("search", BASE[0], "--cluster", "c.toml", "--gpus", "8"), 3, ("c.toml", "directory"), {"c.toml/x": ""}
    ),
    "large cluster": Bad(
        ("search", BASE[0], "--cluster", "big.toml", "--gpus", "8"),
        3,
        ("big.toml", "larger than"),
        {"big.toml": SPARSE},
    ),
    "a rate where bytes belong": capacity_of('"400 Gb/s"', ("'400 Gb/s'", "rate", "80 GiB")),
    "bytes of an unknown unit": capacity_of('"80 Gig"', ("'80 Gig'", "80 GiB")),
    "bytes without a unit": capacity_of('"80"', ("unit is needed", "80 GiB")),
    "bytes as a bare number": capacity_of("80", ("80", "text with a unit")),
    "negative bytes": capacity_of('"-80 GiB"', ("'-80 GiB'", "negative")),
    "number without a source": cluster(
        CLUSTER.replace(', source = "stated: an example" }', " }"), (":gpus", ":max_gpus", ":pue", "source")
    ),
    "NaN in a cluster": cluster(CLUSTER.replace("1.3", "nan"), (":pue", "nan", "finite")),
    "no GPUs in a cluster": cluster(CLUSTER.replace("value = 64", "value = 0"), (":gpus", "0", "positive")),
    "unknown key in a cluster": cluster("puu = 1\n" + CLUSTER, (":puu", "did you mean 'pue'")),
}


@pytest.mark.parametrize("name", TABLE)
def test_refused_in_clear_words(name, tmp_path, monkeypatch, capsys):
    """A bad model or cluster file is refused: exit code, a sentence of what and where, no traceback, data or file."""
    monkeypatch.chdir(tmp_path)
    check(TABLE[name], tmp_path, capsys)
