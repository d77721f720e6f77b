"""Hugging Face configurations become shapes that count right, or are refused by key."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from hwprofiles.faults import InputError
from planner import residual_network
from planner.families import ALL, REGISTRY, shape_of_config
from planner.model import Model
from planner.residual_network import ResidualNetwork
from planner.shape import Shape, build

PLAIN: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "vocab_size": 101,
    "intermediate_size": 96,
}
PICTURE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 1,
    "id2label": {str(i): f"LABEL_{i}" for i in range(10)},
}
CONVOLUTIONS: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [2, 1],
    "num_channels": 1,
    "num_labels": 10,
}
GROUPED = PLAIN | {"num_key_value_heads": 2}

# Built on the meta device with transformers 5.23.0 and torch 2.13.0, tied weights once.
COUNTED: list[tuple[str, dict[str, Any], int]] = [
    ("llama", GROUPED, 167232),
    (
        "llama",
        GROUPED | {"attention_bias": True, "mlp_bias": True, "head_dim": 24, "tie_word_embeddings": True},
        194048,
    ),
    ("granite", GROUPED, 167232),
    ("mistral", GROUPED | {"head_dim": 8}, 136512),
    ("phi3", GROUPED, 167232),
    ("qwen2", GROUPED | {"use_sliding_window": True, "max_window_layers": 2}, 167872),
    ("qwen3", GROUPED | {"head_dim": 24, "attention_bias": True}, 199472),
    ("smollm3", GROUPED, 160768),
    ("seed_oss", GROUPED | {"head_dim": 16, "attention_out_bias": True}, 168192),
    ("hunyuan_v1_dense", GROUPED | {"head_dim": 16}, 167392),
    ("ernie4_5", GROUPED | {"use_bias": True, "head_dim": 16}, 163008),
    ("olmo", GROUPED, 166528),
    ("olmo2", GROUPED, 167712),
    ("olmo3", GROUPED, 167712),
    ("glm", GROUPED | {"head_dim": 16}, 167872),
    ("glm4", GROUPED | {"head_dim": 16}, 168512),
    ("gemma", GROUPED | {"head_dim": 16}, 160768),
    ("gemma2", GROUPED | {"head_dim": 16}, 161408),
    ("gemma3_text", GROUPED | {"head_dim": 16}, 161568),
    ("gpt2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 101, "n_positions": 33}, 158656),
    ("gpt_bigcode", {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 101, "n_positions": 33}, 139936),
    ("gpt_neox", PLAIN, 159776),
    ("gpt_neox", PLAIN | {"attention_bias": False}, 158496),
    ("bloom", {"hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": 101}, 156672),
    (
        "opt",
        {
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 96,
            "vocab_size": 101,
            "word_embed_proj_dim": 64,
            "max_position_embeddings": 50,
        },
        97952,
    ),
    ("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 3, "vocab_size": 101}, 154368),
    ("falcon", {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 101}, 136000),
    (
        "falcon",
        {
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "vocab_size": 101,
            "multi_query": False,
            "parallel_attn": False,
            "bias": True,
            "alibi": True,
        },
        156544,
    ),
    (
        "falcon",
        {
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "vocab_size": 101,
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
        },
        142528,
    ),
    (
        "falcon",
        {
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "vocab_size": 101,
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "num_ln_in_parallel_attn": 1,
        },
        142144,
    ),
    ("starcoder2", GROUPED, 132512),
    ("nemotron", GROUPED, 137216),
    ("nemotron", GROUPED | {"head_dim": 24, "attention_bias": True, "mlp_bias": True}, 170016),
    ("stablelm", GROUPED, 167936),
    ("stablelm", GROUPED | {"use_parallel_residual": True, "use_qkv_bias": True}, 167936),
    ("cohere", GROUPED, 160448),
    ("cohere", GROUPED | {"use_qk_norm": True}, 160928),
    ("cohere2", GROUPED | {"attention_bias": True}, 161408),
    ("mixtral", GROUPED | {"num_local_experts": 8, "num_experts_per_tok": 2}, 814912),
    (
        "phimoe",
        GROUPED | {"lm_head_bias": True, "attention_bias": True, "num_local_experts": 16, "num_experts_per_tok": 2},
        1556517,
    ),
    ("olmoe", GROUPED | {"num_experts": 8, "num_experts_per_tok": 2}, 815392),
    ("granitemoe", GROUPED | {"num_local_experts": 8, "num_experts_per_tok": 2}, 814912),
    (
        "qwen2_moe",
        GROUPED
        | {
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "shared_expert_intermediate_size": 56,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [1],
        },
        206720,
    ),
    (
        "qwen3_moe",
        GROUPED
        | {
            "head_dim": 24,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "mlp_only_layers": [0],
        },
        310320,
    ),
    ("gpt_oss", GROUPED | {"head_dim": 16, "num_local_experts": 6, "num_experts_per_tok": 2}, 638642),
    ("minimax", GROUPED | {"head_dim": 16, "num_local_experts": 8, "num_experts_per_tok": 2}, 831424),
    ("minimax_m2", GROUPED | {"head_dim": 16, "num_local_experts": 6, "num_experts_per_tok": 2}, 630432),
    (
        "dbrx",
        {
            "d_model": 64,
            "n_heads": 4,
            "n_layers": 3,
            "vocab_size": 101,
            "attn_config": {"kv_n_heads": 2},
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 6, "moe_top_k": 2},
        },
        217280,
    ),
    ("hunyuan_v1_moe", GROUPED | {"num_experts": 6, "moe_topk": 2, "head_dim": 16}, 722272),
    (
        "ernie4_5_moe",
        GROUPED
        | {
            "moe_num_experts": 6,
            "moe_k": 2,
            "moe_intermediate_size": 40,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 2,
        },
        290962,
    ),
    (
        "ernie4_5_moe",
        GROUPED
        | {
            "moe_num_experts": 6,
            "moe_k": 2,
            "moe_intermediate_size": 40,
            "moe_layer_end_index": 3,
            "tie_word_embeddings": False,
            "use_bias": True,
        },
        299671,
    ),
    (
        "deepseek_v2",
        PLAIN
        | {
            "q_lora_rank": None,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 12,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
        },
        322960,
    ),
    (
        "deepseek_v3",
        PLAIN
        | {
            "attention_bias": True,
            "q_lora_rank": 20,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 12,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "n_shared_experts": 1,
            "first_k_dense_replace": 2,
        },
        252988,
    ),
    (
        "glm4_moe",
        GROUPED
        | {
            "head_dim": 16,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "use_qk_norm": True,
            "attention_bias": True,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
        },
        310880,
    ),
    (
        "dots1",
        GROUPED
        | {
            "head_dim": 16,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
        },
        340960,
    ),
    (
        "llama4_text",
        GROUPED
        | {
            "head_dim": 16,
            "intermediate_size_mlp": 120,
            "num_local_experts": 4,
            "interleave_moe_layer_step": 2,
            "num_experts_per_tok": 1,
        },
        329024,
    ),
    ("bert", PLAIN | {"max_position_embeddings": 33, "type_vocab_size": 3}, 160005),
    (
        "bert",
        PLAIN
        | {
            "max_position_embeddings": 33,
            "type_vocab_size": 3,
            "architectures": ["BertForSequenceClassification"],
            "num_labels": 5,
        },
        160101,
    ),
    ("vit", PICTURE, 94122),
    ("vit", PICTURE | {"qkv_bias": False}, 93546),
    ("resnet", CONVOLUTIONS | {"layer_type": "basic"}, 6626),
    ("resnet", CONVOLUTIONS | {"layer_type": "bottleneck", "downsample_in_first_stage": True}, 1290),
]


def built(found: Shape | ResidualNetwork) -> Model:
    """The model of what a configuration says."""
    return build(found) if isinstance(found, Shape) else residual_network.build(found)


def read(model_type: str, config: dict[str, Any], **more: Any) -> Any:
    """The hyper-parameters of a configuration with a few more keys."""
    return shape_of_config({"model_type": model_type, **config, **more}, "config.json", "tiny")


@pytest.mark.parametrize(("model_type", "config", "total"), COUNTED)
def test_a_family_counts_every_parameter(model_type: str, config: dict[str, Any], total: int) -> None:
    """A small model of each family has as many parameters as the reference implementation builds."""
    assert built(read(model_type, config)).total_parameters() == total


def test_every_family_is_counted() -> None:
    """No model_type is registered without a counted example, but for those that only alias another."""
    aliases = {"gemma3", "kimi_k2", "llama4", "minimax_m1", "minimax_text_01"}
    assert set(REGISTRY) - {model_type for model_type, _, _ in COUNTED} == aliases


@pytest.mark.parametrize(("model_type", "config"), [(kind, config) for kind, config, _ in COUNTED])
def test_an_unknown_structural_key_is_refused_in_every_family(model_type: str, config: dict[str, Any]) -> None:
    """A key that sounds like a size and isn't understood is named, whatever the family."""
    with pytest.raises(InputError, match="extra_hidden_width"):
        read(model_type, config, extra_hidden_width=7)


@pytest.mark.parametrize(("model_type", "config"), [(kind, config) for kind, config, _ in COUNTED])
def test_keys_that_leave_the_shape_alone_are_accepted(model_type: str, config: dict[str, Any]) -> None:
    """Rotary bases, types, token ids, dropouts, epsilons and quantization don't change a shape."""
    neutral = {
        "rope_theta": 1e4,
        "torch_dtype": "bfloat16",
        "initializer_range": 0.02,
        "eos_token_id": 2,
        "attention_dropout": 0.0,
        "rms_norm_eps": 1e-5,
        "quantization_config": {"weight_block_size": [128, 128]},
        "_name_or_path": "x",
        "unheard_of": 3,
    }
    assert read(model_type, config, **neutral) == read(model_type, config)


@pytest.mark.parametrize("bad", [0, -4, 4.5, True, "64", [64], float("inf")])
@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_size_that_is_no_positive_whole_number_is_refused(key: str, bad: object) -> None:
    """Zero, negative, fractional, boolean, text and list sizes are faults that name the key."""
    with pytest.raises(InputError, match=key):
        read("llama", GROUPED, **{key: bad})


WEIRD = [None, 0, -1, True, 2.5, float("nan"), "x", [], [1], ["x"], [None], {}, {"a": 1}, 10**6, 10**30]


@pytest.mark.parametrize(("model_type", "config"), [(kind, config) for kind, config, _ in COUNTED])
def test_no_value_of_any_key_escapes_as_another_error(model_type: str, config: dict[str, Any]) -> None:
    """Whatever stands under a key, the file builds a model with parameters or is refused as InputError."""
    for key, value in itertools.product((*config, "layer_types", "sliding_window", "mlp_layer_types"), WEIRD):
        try:
            model = built(read(model_type, config, **{key: value}))
        except InputError:
            continue
        assert model.total_parameters() > 0


def test_all_faults_of_a_file_come_at_once() -> None:
    """Two missing sizes, a bad one and an unknown one are four faults of one error."""
    with pytest.raises(InputError) as caught:
        read("llama", {"hidden_size": 64, "num_hidden_layers": -1, "num_attention_heads": 4, "conv_width": 4})
    assert len(caught.value.faults) == 4


def test_an_unknown_family_names_its_keys_and_the_nearest_one() -> None:
    """The error of an unknown model_type lists what the file has and which family comes closest."""
    with pytest.raises(InputError) as caught:
        read("lama", GROUPED)
    assert caught.value.faults[0].nearest == "llama"
    assert "num_key_value_heads" in str(caught.value)


def test_assume_reads_a_file_as_another_family() -> None:
    """With assume the model_type in the file doesn't matter; a wrong assume is refused."""
    config = {"model_type": "my_llama", **GROUPED}
    assert shape_of_config(config, "c", "tiny", assume="llama") == read("llama", GROUPED)
    with pytest.raises(InputError, match="assume"):
        shape_of_config(config, "c", "tiny", assume="lama")


@pytest.mark.parametrize("model_type", ["deepseek_v4", "switch_transformers", "mamba2", None, 7, []])
def test_what_has_no_layer_kind_is_refused(model_type: object) -> None:
    """Families without a layer kind here, and files without a model_type, are refused."""
    with pytest.raises(InputError):
        shape_of_config({"model_type": model_type, **GROUPED}, "c", "tiny")


def test_a_multimodal_file_counts_its_text_decoder() -> None:
    """Sizes come from text_config, which may leave tied embeddings to the file around it."""
    outer = {"model_type": "gemma3", "vision_config": {"hidden_size": 9}, "tie_word_embeddings": False}
    inner = GROUPED | {"model_type": "gemma3_text", "head_dim": 16}
    shape = shape_of_config({**outer, "text_config": inner}, "c", "tiny")
    assert (shape.hidden, shape.tied) == (64, False)


def test_deepseek_heads_are_not_sized_by_head_dim() -> None:
    """In a DeepSeek file head_dim is the rotary part and changes nothing."""
    config = next(config for kind, config, _ in COUNTED if kind == "deepseek_v3")
    assert read("deepseek_v3", config, head_dim=4, num_key_value_heads=4) == read("deepseek_v3", config)


def test_prediction_modules_stand_apart() -> None:
    """num_nextn_predict_layers adds to the label mtp and leaves the total alone; its newer spelling is the same."""
    config = next(config for kind, config, _ in COUNTED if kind == "deepseek_v3")
    without, with_one = (build(read("deepseek_v3", config, num_nextn_predict_layers=n)) for n in (0, 1))
    assert without.total_parameters() == with_one.total_parameters()
    assert with_one.parameters()["mtp"] > with_one.mtp_layers * 2 * 64 * 64
    assert build(read("deepseek_v3", config, num_mtp_layers=1)) == with_one


@pytest.mark.parametrize(
    ("model_type", "config", "expected"),
    [
        ("mistral", GROUPED | {"sliding_window": 8}, "wwwww"),
        ("mistral", GROUPED | {"sliding_window": None}, "fffff"),
        ("qwen3", GROUPED | {"use_sliding_window": True, "max_window_layers": 2}, "ffwww"),
        ("qwen3", GROUPED | {"sliding_window": 8}, "fffff"),
        ("gemma2", GROUPED, "wfwfw"),
        ("gemma3_text", GROUPED | {"sliding_window_pattern": 3}, "wwfww"),
        ("cohere2", GROUPED, "wwwfw"),
        ("gpt_oss", GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}, "wfwfw"),
        ("llama", GROUPED, "fffff"),
    ],
)
def test_windows_lie_on_the_layers_that_the_family_gives_them(
    model_type: str, config: dict[str, Any], expected: str
) -> None:
    """Each layer sees its window or the full sequence, as the family's rule or list says."""
    shape = read(model_type, config)
    assert "".join(shape.reach(i)[0] for i in range(5)) == expected


def test_layer_types_of_the_wrong_length_are_refused() -> None:
    """A list with an entry for each layer must have that many entries, and only known words."""
    for types in (["full_attention"] * 4, ["full_attention"] * 4 + ["mamba"]):
        with pytest.raises(InputError, match="layer_types"):
            read("qwen3", GROUPED, layer_types=types)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "mmmmm"),
        ({"decoder_sparse_step": 2}, "dmdmd"),
        ({"mlp_only_layers": [0, 3]}, "dmmdm"),
        ({"mlp_layer_types": ["dense", "dense", "sparse", "sparse", "dense"]}, "ddmmd"),
    ],
)
def test_experts_lie_on_the_layers_that_the_file_names(changes: dict[str, Any], expected: str) -> None:
    """Steps, lists of exceptions and lists of types place the mixtures."""
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
    shape = read("qwen3_moe", GROUPED | sizes | changes)
    assert "".join("dm"[shape.has_experts(i)] for i in range(5)) == expected


def test_model_types_are_registered_once() -> None:
    """No two families claim one model_type."""
    claimed = list(itertools.chain.from_iterable(family.model_types for family in ALL))
    assert len(claimed) == len(set(claimed))
