import re

import pytest

from hwprofiles import load
from planner import catalog


def toml_blocks(text: str) -> list[str]:
    """The fenced TOML blocks of a document, in order."""
    return re.findall(r"^```toml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def clusters(root, tmp_path):
    """The clusters of docs/hardware.md, loaded, by name."""
    loaded = {}
    for number, block in enumerate(toml_blocks((root / "docs" / "hardware.md").read_text(encoding="utf-8"))):
        path = tmp_path / f"{number}.toml"
        path.write_text(block, encoding="utf-8")
        cluster = load.cluster(path)
        loaded[cluster.name] = cluster
    return loaded


def test_the_documented_cluster_loads(clusters):
    """The cluster file of the document is one, and its own bibliography reaches the price."""
    cluster = clusters["our-cluster"]
    assert (cluster.gpus, cluster.node.name, cluster.fabric.name) == (4096, "dgx-h100", "ib-ndr-rail")
    assert cluster.price == pytest.approx(2.5 / 3600)
    assert "Our contract" in cluster.sources["price"]


def test_the_documented_base_changes_only_what_it_says(clusters):
    """A cluster on a base differs from it by the oversubscription that it states, and in bandwidth above the leaf."""
    whole, thin = load.cluster("h100-superpod"), clusters["our-thin-cluster"]
    assert thin.fabric.parameters == {**whole.fabric.parameters, "leaf_oversubscription": 2}
    assert thin.gpu == whole.gpu
    assert thin.tiers[-1].bandwidth == pytest.approx(whole.tiers[-1].bandwidth / 2)


@pytest.fixture
def models(root, tmp_path):
    """The models of docs/models.md, loaded, by name."""
    loaded = {}
    for number, block in enumerate(toml_blocks((root / "docs" / "models.md").read_text(encoding="utf-8"))):
        path = tmp_path / f"{number}.toml"
        path.write_text(block, encoding="utf-8")
        model = catalog.load(path)
        loaded[model.name] = model
    return loaded


def test_the_documented_network_loads(models):
    """The small residual network takes images of 8 pixels, and its second stage halves them."""
    model = models["our-digits"]
    assert model.embedding.takes == (1, 8, 8)
    assert [kind.takes for kind in model.kinds][-1] == (32, 4, 4)
    assert (model.layers, model.sequence, model.predicts) == (4, 1, "classes")


def test_the_documented_flat_model_loads(models):
    """The flat table is a model of two dense layers and 46 with experts, most of whose parameters rest."""
    model = models["our-moe"]
    dense = [not model.kinds[kind].parameters()["experts"] for kind in model.order]
    assert dense == [True] * 2 + [False] * 46
    assert model.parameters()["experts"] == 46 * 256 * 3 * 6144 * 2048
    assert model.active_parameters()["experts"] == 46 * 8 * 3 * 6144 * 2048


def test_the_documented_kinds_of_layers_load(models):
    """The list of kinds is the order of the layers, and only the kind that says so has experts."""
    model = models["our-hybrid"]
    assert [model.kinds[kind].name for kind in model.order] == (["local"] * 3 + ["global"]) * 2
    assert model.parameters()["experts"] == 2 * 64 * 3 * 4096 * 3584
