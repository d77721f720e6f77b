"""The catalogue counts real models to the last parameter; files that can't be read are refused in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hwprofiles.faults import InputError
from planner.catalog import LABELS, describe, load, names
from planner.families.row import shape_of_row
from planner.shape import build

# Built on the meta device with transformers 5.23.0 and torch 2.13.0, tied weights once, prediction modules not built:
# total, active (embedding and output matrix counted), routed experts, shared expert, attention, embedding, output
# matrix, router.
EXACT = {
    "bloom-176b": (176_247_271_424, 176_247_271_424, 0, 0, 57_551_872_000, 3_596_615_680, 0, 0),
    "deepseek-v2": (
        235_741_434_880,
        21_375_800_320,
        222_717_542_400,
        2_783_969_280,
        8_953_958_400,
        524_288_000,
        524_288_000,
        48_332_800,
    ),
    "deepseek-v3": (
        671_026_404_352,
        37_552_282_624,
        653_908_770_816,
        2_554_331_136,
        11_413_984_256,
        926_679_040,
        926_679_040,
        106_430_464,
    ),
    "glm-4.5": (
        352_797_814_784,
        33_632_251_904,
        335_963_750_400,
        2_099_773_440,
        12_542_782_464,
        775_946_240,
        775_946_240,
        72_908_800,
    ),
    "gpt-oss-120b": (
        116_829_156_672,
        5_711_982_912,
        114_701_598_720,
        0,
        955_908_864,
        579_133_440,
        579_133_440,
        13_275_648,
    ),
    "gpt3-175b": (174_604_259_328, 174_604_259_328, 0, 0, 57_986_777_088, 642_723_840, 0, 0),
    "kimi-k2": (
        1_026_408_209_408,
        32_861_477_888,
        1_014_686_023_680,
        2_642_411_520,
        6_169_007_104,
        1_174_405_120,
        1_174_405_120,
        165_150_720,
    ),
    "llama3.1-405b": (405_853_388_800, 405_853_388_800, 0, 0, 71_875_657_728, 2_101_346_304, 2_101_346_304, 0),
    "llama3.1-8b": (8_030_261_248, 8_030_261_248, 0, 0, 1_342_308_352, 525_336_576, 525_336_576, 0),
    "llama4-maverick": (
        400_711_848_960,
        17_184_691_200,
        386_547_056_640,
        3_019_898_880,
        3_020_144_640,
        1_034_485_760,
        1_034_485_760,
        15_728_640,
    ),
    "megatron-1t": (1_008_038_758_400, 1_008_038_758_400, 0, 0, 335_557_427_200, 1_363_148_800, 0, 0),
    "minimax-text-01": (
        456_089_655_296,
        48_403_306_496,
        434_865_438_720,
        0,
        18_749_603_840,
        1_229_193_216,
        1_229_193_216,
        15_728_640,
    ),
    "mixtral-8x22b": (
        140_620_634_112,
        39_152_031_744,
        135_291_469_824,
        0,
        4_932_845_568,
        196_608_000,
        196_608_000,
        2_752_512,
    ),
    "olmoe-1b-7b": (6_919_161_856, 1_282_017_280, 6_442_450_944, 0, 268_533_760, 103_022_592, 103_022_592, 2_097_152),
    "qwen2-57b-a14b": (
        57_408_658_944,
        14_249_270_784,
        49_325_015_040,
        6_165_727_232,
        822_312_960,
        544_538_624,
        544_538_624,
        6_422_528,
    ),
    "qwen3-235b-a22b": (
        235_093_634_560,
        22_190_763_520,
        227_096_395_776,
        0,
        6_702_906_880,
        622_329_856,
        622_329_856,
        49_283_072,
    ),
    "qwen3-30b-a3b": (
        30_532_122_624,
        3_353_032_704,
        28_991_029_248,
        0,
        906_080_256,
        311_164_928,
        311_164_928,
        12_582_912,
    ),
    "qwen3-8b": (8_190_735_360, 8_190_735_360, 0, 0, 1_510_106_112, 622_329_856, 622_329_856, 0),
}
# Closed forms that leave norms out: total and active.
WITHOUT_NORMS = {
    "snowflake-arctic": (478_583_848_960, 17_317_888_000),
    "grok-1": (315_683_241_984, 83_755_008_000),
    "hunyuan-large": (388_697_292_800, 51_317_964_800),
    "glam-64b-64e": (1_161_755_099_136, 96_603_209_728),
    "palm-540b": (540_354_281_472, 540_354_281_472),
}
# Built the same way from the sizes of the published configurations.
ALSO_BUILT = {
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3.1-70b": 70_553_706_496,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "deepseek-v2-lite": 15_706_484_224,
    "gpt-oss-20b": 20_914_757_184,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-32b": 32_762_123_264,
    "qwen3-14b": 14_768_307_200,
    "qwen3-4b": 4_022_468_096,
    "llama4-scout": 107_769_861_120,
    "nemotron-4-15b": 15_628_775_424,
    "nemotron-4-340b": 341_029_195_776,
}
POST_ATTENTION_NORM_ABSENT = ("gpt3-175b", "megatron-1t")
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 101,
}


@pytest.mark.parametrize("name", list(EXACT))
def test_a_catalogue_model_counts_to_the_last_parameter(name: str) -> None:
    """Total, active and every part equal those of the built model."""
    total, active, experts, shared, attention, embedding, output, router = EXACT[name]
    model = load(name)
    parts = model.parameters()
    assert (model.total_parameters(), model.total_active()) == (total, active)
    assert [parts[label] for label in ("experts", "shared_experts", "embedding", "head", "router")] == [
        experts,
        shared,
        embedding,
        output,
        router,
    ]
    # The reference adds up what has "attention" in its name, so also the norm behind it ("post_attention_layernorm"),
    # which here is a norm; GPT-2 calls that norm "ln_2".
    vectors = 2 if name.startswith("bloom") else 1
    behind = 0 if name in POST_ATTENTION_NORM_ABSENT else vectors * model.hidden * model.layers
    assert parts["attention"] + behind == attention


@pytest.mark.parametrize("name", list(WITHOUT_NORMS))
def test_models_known_by_a_closed_form_count_it_and_their_norms(name: str) -> None:
    """Without norms (of the residual stream, and of q and k) the count is the closed form's."""
    model = load(name)
    normed = model.parameters()["norms"] + (name == "hunyuan-large") * (32 * 2 + 32) * 80
    assert (model.total_parameters() - normed, model.total_active() - normed) == WITHOUT_NORMS[name]


@pytest.mark.parametrize("name", list(ALSO_BUILT))
def test_the_other_sizes_of_a_family_count_to_the_last_parameter(name: str) -> None:
    """Entries whose parts have no table of their own equal the built model's total."""
    assert load(name).total_parameters() == ALSO_BUILT[name]


def test_prediction_modules_are_counted_apart() -> None:
    """DeepSeek-V3 publishes 11.5e9 parameters of its own for MTP, about 4e9 are GLM-4.5's; no total has them."""
    assert load("deepseek-v3").parameters()["mtp"] == pytest.approx(11.5e9, rel=0.01)
    assert load("glm-4.5").parameters()["mtp"] == pytest.approx(4e9, rel=0.01)
    assert load("kimi-k2").parameters()["mtp"] == 0


@pytest.mark.parametrize("name", names())
def test_every_catalogue_model_loads_with_its_source(name: str) -> None:
    """Each entry builds under its own name, says where it is from and splits into the promised parts."""
    model = load(name)
    described = describe(model, 4096)
    parts = described["parameters"]
    assert (model.name, bool(model.provenance)) == (name, True)
    assert list(parts) == ["total", "active", *LABELS]
    assert sum(parts[label] for label in LABELS) == parts["total"] + parts["mtp"]
    flops = described["model_flops_per_token"]
    assert 0 < flops["causal"] <= flops["full_attention"]
    assert (flops["causal"] < flops["full_attention"]) == (model.predicts == "tokens")
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize(
    "spelling", ["deepseek-v3", "DeepSeek_V3", "deepseek-ai/DeepSeek-V3", "deepseek v3", "DeepSeek-R1"]
)
def test_names_are_found_whatever_case_hyphens_and_owner(spelling: str) -> None:
    """Spelling variants and aliases name one entry."""
    assert load(spelling).name == "deepseek-v3"


def test_an_unknown_name_gets_the_nearest_one() -> None:
    """A typo is answered with the name that was meant."""
    with pytest.raises(InputError) as caught:
        load("deepsek-v3")
    assert caught.value.faults[0].nearest == "deepseek-v3"


@pytest.mark.parametrize(("name", "reason"), [("switch-c-2048", "encoder-decoder"), ("deepseek-v4-pro", "sparse")])
def test_models_that_cannot_be_counted_say_why(name: str, reason: str) -> None:
    """An entry without a layer kind is refused with its reason and isn't listed."""
    assert name not in names()
    with pytest.raises(InputError, match=reason):
        load(name)


def test_a_configuration_file_is_the_same_model_as_its_entry(tmp_path: Path) -> None:
    """Llama 3.1 8B from a config.json equals the entry but for its name and source."""
    sizes = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA | sizes | {"intermediate_size": 14336, "vocab_size": 128256}))
    model, entry = load(path), load("llama3.1-8b")
    assert model.name == tmp_path.name
    assert (model.kinds, model.order, model.head) == (entry.kinds, entry.order, entry.head)


def test_assume_needs_a_configuration(tmp_path: Path) -> None:
    """An unknown model_type can be read as a known one; a name or a TOML has nothing to assume."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA | {"model_type": "mine"}))
    assert load(path, assume="llama").family == "llama"
    for other in ("llama3.1-8b", tmp_path / "x.toml"):
        (tmp_path / "x.toml").write_text("hidden = 1")
        with pytest.raises(InputError, match="assume"):
            load(other, assume="llama")


GOOD_JSON = json.dumps(LLAMA)
TOML = 'source = "a test"\nhidden = 64\nvocab = 101\nheads = 4\nffn = 96\nlayers = 2\n'
BAD_FILES = {
    "truncated.json": (GOOD_JSON[:40], "line 1, column"),
    "array.json": ("[1, 2]", "found a list"),
    "empty.json": ("", "line 1, column 1"),
    "nan.json": (GOOD_JSON.replace("64", "NaN", 1), "NaN"),
    "infinite.json": (GOOD_JSON.replace("64", "1e999", 1), "hidden_size"),
    "twice.json": (GOOD_JSON[:-1] + ', "hidden_size": 65}', "'hidden_size' appears twice"),
    "long.json": (GOOD_JSON.replace("64", "9" * 5000, 1), "isn't valid JSON"),
    "deep.json": ("[" * 200_000, "isn't valid JSON"),
    "half.toml": (TOML[:-1] + "\n[kinds", "isn't valid TOML"),
    "typo.toml": (TOML + "heds = 3\n", "did you mean 'heads'"),
    "sourceless.toml": (TOML.replace('"a test"', '" "'), "source"),
    "missing.toml": (TOML.replace("heads = 4\n", ""), "heads: is missing"),
    "nan.toml": (TOML + "window = nan\n", "window"),
    "text.toml": (TOML + 'gated = "yes"\n', "gated"),
    "kindless.toml": (TOML + 'order = ["dense"]\n', "kinds"),
    "orderless.toml": (TOML + "[kinds.dense]\nffn = 3\n", "order"),
    "strange.toml": (TOML + 'order = ["moe"]\n[kinds.dense]\nffn = 3\n', "did you mean|one of the kinds"),
    "uncounted.toml": (TOML + 'order = [{kind = "dense", count = 0}]\n[kinds.dense]\nffn = 3\n', "count"),
    "unequal.toml": (TOML + 'order = ["dense"]\n[kinds.dense]\nffn = 3\n', "layers is 2"),
    "wrong_kind.toml": (TOML + 'order = ["dense", "dense"]\n[kinds.dense]\nvocab = 3\n', "kinds.dense: vocab"),
    "bad_kind.toml": (TOML + 'order = ["dense", "dense"]\n[kinds.dense]\nffn = 0\n', "kinds.dense: ffn"),
}


@pytest.mark.parametrize("name", list(BAD_FILES))
def test_a_bad_file_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    """Whatever is wrong with a file comes out as InputError that names the file and the place."""
    content, expected = BAD_FILES[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=expected) as caught:
        load(tmp_path / name)
    assert name in str(caught.value)


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    """A directory, a missing file, bytes that aren't UTF-8 and a huge file are each named as such."""
    (tmp_path / "config.json").write_bytes(b'{"a": "\xff"}')
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(65 * 2**20)
    found = {}
    for path in (tmp_path, tmp_path / "confg.json", tmp_path / "config.json", huge):
        with pytest.raises(InputError) as caught:
            load(path)
        found[path.name] = str(caught.value)
    assert "is a directory" in found[tmp_path.name]
    assert "did you mean 'config.json'" in found["confg.json"]
    assert "UTF-8; byte 7" in found["config.json"]
    assert "at most" in found["huge.json"]


def test_a_flat_toml_is_a_shape(tmp_path: Path) -> None:
    """A table of shape fields builds the model it says, named after its file."""
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    model = load(path)
    assert (model.name, model.layers, model.provenance) == ("mine", 2, "a test")
    assert model.total_parameters() == 2 * (4 * 64 * 64 + 3 * 64 * 96 + 2 * 64) + 2 * 101 * 64 + 64


def test_the_example_file_lists_kinds_and_their_order() -> None:
    """The documented example has its 24 layers in order, each kind with its own widths."""
    model = load(Path(__file__).parents[2] / "examples" / "model.toml")
    assert [kind.name for kind in model.kinds] == ["dense", "local", "global"]
    assert model.order == (0,) * 2 + (1,) * 12 + (2,) * 4 + (1,) * 5 + (2,)
    assert (model.experts, model.topk, model.mtp_layers) == (64, 6, 1)
    mixture = 64 * 3 * 2560 * 1024
    assert model.parameters()["experts"] == 22 * mixture
    assert model.parameters()["dense_ffn"] == 2 * 3 * 2560 * 10240
    assert model.kinds[1].attention_flops(8192, causal=False) == 2 * 20 * 256 * 4096


ROW = {
    "name": "row",
    "arch_class": "moe",
    "layers": 4,
    "hidden": 64,
    "ffn_hidden": 96,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 16,
    "vocab": 101,
    "tied_embedding": None,
    "gated_mlp": True,
    "attention": "gqa",
    "mla": None,
    "moe": {
        "experts": 8,
        "topk": 2,
        "moe_ffn_hidden": 32,
        "shared_experts": 1,
        "shared_expert_ffn_hidden": 48,
        "first_dense_layers": 1,
        "moe_layer_freq": 1,
        "mtp_layers": None,
    },
}


def test_a_published_row_is_a_shape() -> None:
    """The sizes that a run prints build its model; silent switches take the documented defaults."""
    model = build(shape_of_row(ROW, "row 1"))
    parts = model.parameters()
    assert parts["experts"] == 3 * 8 * 3 * 64 * 32
    assert parts["shared_experts"] == 3 * 3 * 64 * 48
    assert parts["dense_ffn"] == 3 * 64 * 96
    assert parts["head"] == 101 * 64


def test_a_published_row_with_latent_attention() -> None:
    """MLA sizes come from the row's own table, whatever head_dim says."""
    ranks = {"q_lora_rank": 8, "kv_lora_rank": 6, "qk_nope_head_dim": 5, "qk_rope_head_dim": 3, "v_head_dim": 4}
    model = build(shape_of_row(ROW | {"attention": "mla", "mla": ranks}, "row 1"))
    assert model.kv_heads == 0
    assert model.parameters()["attention"] == 4 * (64 * 8 + 8 + 8 * 32 + 64 * 9 + 6 + 6 * 36 + 16 * 64)


def test_a_published_row_that_is_silent_or_strange_is_refused() -> None:
    """A missing vocabulary needs a stand-in; state-space hybrids and a missing topk have none."""
    silent = ROW | {"vocab": None}
    assert shape_of_row(silent, "row 1", vocab=500).vocab == 500
    with pytest.raises(InputError, match=r"row 1: model\.vocab"):
        shape_of_row(silent, "row 1")
    with pytest.raises(InputError, match="hybrid_mamba"):
        shape_of_row(ROW | {"arch_class": "hybrid_mamba"}, "row 1")
    with pytest.raises(InputError, match="topk"):
        build(shape_of_row(ROW | {"moe": ROW["moe"] | {"topk": None}}, "row 1"))


def test_the_catalogue_imports_nothing_heavy() -> None:
    """Counting a model needs neither numpy nor scipy nor networkx, so help and `plan models` stay fast."""
    code = (
        "import sys, planner.catalog as catalog; catalog.load('deepseek-v3');"
        "print(*{'numpy', 'scipy', 'networkx', 'torch', 'plotly', 'yaml'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
