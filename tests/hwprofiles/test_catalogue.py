"""The shipped profiles: complete, cited, and within physics."""

import dataclasses
import subprocess
import sys
import time
import tomllib
from importlib import resources

import pytest

from hwprofiles import load
from hwprofiles.faults import InputError

ENTRIES = [(kind, name) for kind in load.KINDS for name in load.names(kind)]
DATA = resources.files("hwprofiles") / "data"
WANTED_GPUS = {
    "a100-sxm-40gb", "a100-sxm-80gb", "a100-pcie-80gb", "h100-sxm", "h100-sxm-96gb-500w", "h800-sxm", "h20-sxm",
    "h200-sxm", "b200-sxm", "b300-sxm", "gb200", "gb300", "mi300x", "mi325x", "mi350x", "mi355x", "l40s", "rtx4090",
    "ascend-910b", "tpu-v5p",
}  # fmt: skip
WANTED_CLUSTERS = {
    "h100-superpod", "meta-24k-roce", "deepseek-h800", "gb200-nvl72", "gb300-nvl72", "b200-superpod", "b300-superpod",
    "h200-superpod", "a100-superpod", "a100-roce", "mi300x", "mi355x", "l40s-pcie", "rtx4090-pcie", "ascend-910b",
    "tpu-v5p", "h100-grand-teton-500w", "h100-node",
}  # fmt: skip


def test_the_catalogue_has_the_gpus_and_clusters_of_its_users():
    """Names that plans, examples and published runs rely on."""
    assert set(load.names("gpu")) >= WANTED_GPUS
    assert set(load.names("cluster")) >= WANTED_CLUSTERS


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_profile_loads_and_cites_every_number(kind, name):
    """Each number has a value, a unit and a citation; the file is called as it calls itself."""
    spec = getattr(load, kind)(name)
    assert spec.name == name
    numbers = load.raw(kind, name)
    assert numbers
    for key, datum in numbers.items():
        assert datum.unit, key
        assert datum.text, key
        assert len(datum.source) > 10, key
        assert spec.sources[key] == datum.source


@pytest.mark.parametrize("name", load.names("gpu"))
def test_no_measurement_is_above_its_peak(name):
    """Efficiencies are shares; an attention kernel stays under the tensor peak at any head dimension."""
    gpu = load.gpu(name)
    assert 0 < gpu.hbm_efficiency <= 1
    assert all(0 < curve.efficiency <= 1 for curve in gpu.matmul.values())
    assert 0 < gpu.grouped.efficiency <= 0.95
    assert 0 < gpu.attention.efficiency <= 1
    assert gpu.reserve < gpu.hbm_capacity / 10
    assert gpu.pcie_bandwidth <= gpu.link_bandwidth < gpu.hbm_bandwidth


@pytest.mark.parametrize("name", load.names("gpu"))
def test_each_fast_number_type_has_a_matmul_curve(name):
    """A GPU with an fp8 or fp4 peak of NVIDIA's has the curves of the precisions that use it, and none without it."""
    gpu = load.gpu(name)
    assert "bf16" in gpu.peak
    assert ("fp8" in gpu.peak) == ("fp8" in gpu.matmul)
    assert "nvfp4" not in gpu.matmul or "fp4" in gpu.peak
    assert "mxfp8" not in gpu.matmul or "fp8" in gpu.peak
    if gpu.generation == "blackwell":
        assert {"fp8", "mxfp8", "nvfp4"} <= gpu.matmul.keys()


def test_the_h100_carries_the_published_figures():
    """A spot check against the datasheet and the fitted kernel law (0.843 over the sustained-clock factor 1.12)."""
    gpu = load.gpu("h100-sxm")
    assert gpu.peak["bf16"] == pytest.approx(989.4e12)
    assert gpu.hbm_capacity == 81559 * 2**20
    assert gpu.matmul["bf16"].efficiency == pytest.approx(0.843 / 1.12, abs=1e-3)
    assert gpu.matmul["bf16"].launch == pytest.approx(3.09e-6)
    assert gpu.price * 3600 == pytest.approx(2.95)
    assert isinstance(gpu.sm_count, int)
    assert load.node("dgx-h100").nic_bandwidth == pytest.approx(50e9)


@pytest.mark.parametrize(
    ("gpu", "tflops"), [("a100-sxm-80gb", 189), ("h100-sxm", 539), ("b200-sxm", 1270), ("l40s", 143.4)]
)
def test_attention_reaches_the_published_rate_at_16k(gpu, tflops):
    """Causal forward rate at head dimension 128 and 16,384 tokens: FA2 bars, cuDNN bars, the FA4 law, TRT-LLM rows."""
    spec = load.gpu(gpu)
    curve = spec.attention
    rate = spec.peak["bf16"] / (1 / curve.efficiency + curve.flop_per_exp / 128) / (1 + curve.seq_half / 16384)
    assert rate / 1e12 == pytest.approx(tflops, rel=0.09)


@pytest.mark.parametrize("name", load.names("node"))
def test_a_node_fits_its_gpu(name):
    """A node's scale-up link is that of its GPU, and its domain holds whole nodes."""
    node = load.node(name)
    assert node.scale_up_bandwidth == pytest.approx(load.gpu(node.gpu).link_bandwidth)
    assert node.scale_up_domain % node.gpus == 0


@pytest.mark.parametrize("alias", ["H100", "H100-SXM-80GB", "h100-sxm5", " h100-sxm "])
def test_a_gpu_answers_to_its_other_names(alias):
    """Aliases and capitals lead to the same profile."""
    assert load.gpu(alias).name == "h100-sxm"


def test_every_alias_leads_somewhere_and_hides_nothing():
    """An alias names an existing profile and is not itself the name of another one."""
    for kind, table in tomllib.loads((DATA / "aliases.toml").read_text("utf-8")).items():
        assert set(table.values()) <= set(load.names(kind))
        assert not set(table) & set(load.names(kind))
        assert all(alias == alias.lower() for alias in table)


@pytest.mark.parametrize("kind", load.KINDS)
def test_an_unknown_name_gets_the_nearest_one(kind):
    """A typing error is answered with the name that was meant."""
    name = load.names(kind)[-1]
    with pytest.raises(InputError, match=f"did you mean '{name}'"):
        getattr(load, kind)(name + "x")


def test_every_source_is_used_and_has_a_place():
    """The bibliography holds no dead entries, and each entry says where the work is and when."""
    text = "".join(f.read_text("utf-8") for kind in load.KINDS for f in (DATA / f"{kind}s").iterdir())
    for key, entry in load.bibliography().items():
        assert f'source = "{key}' in text, key
        assert {"title", "url", "date"} == set(entry)


def test_a_profile_is_frozen():
    """Specs are facts: nobody changes them in place."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        load.gpu("h100").tdp = 1.0


def test_the_loader_stays_light():
    """Loading imports neither networkx, numpy nor scipy, and a cluster of 131,072 GPUs is there at once."""
    code = (
        "import sys, time; from hwprofiles import load; start = time.process_time();"
        "load.cluster('h100-superpod', 131072); print(time.process_time() - start);"
        "print([m for m in ('networkx', 'scipy', 'numpy', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert out[1] == "[]"
    assert float(out[0]) < 0.2  # 6 ms on a quiet machine


def test_a_second_look_costs_nothing():
    """Profiles are read once."""
    load.cluster("h100-superpod", 131072)
    start = time.process_time()
    for gpus in range(8, 8008, 8):
        load.cluster("h100-superpod", gpus)
    assert time.process_time() - start < 1.0
