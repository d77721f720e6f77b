"""Twins beside the reference implementation: the same configuration, the same weights, the same output and FLOP."""

import logging
import re
import warnings

import pytest

torch = pytest.importorskip("torch")

from executor.flops import counter  # noqa: E402
from executor.model import build as build_twin  # noqa: E402
from planner import catalog, residual_network  # noqa: E402
from planner.families import shape_of_config  # noqa: E402
from planner.shape import Shape, build  # noqa: E402

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "intermediate_size": 48,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 2,
    "layer_norm_eps": 1e-5,
    "num_labels": 5,
}
BASIC = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [2, 1], "layer_type": "basic", "num_labels": 5}
NARROW = BASIC | {"hidden_sizes": [16, 24], "layer_type": "bottleneck", "downsample_in_first_stage": True}
CASES = {
    "masked": ("Bert", "MaskedLM", TEXT),
    "classifier": ("Bert", "SequenceClassification", TEXT | {"num_labels": 3}),
    "vit": ("ViT", "ImageClassification", IMAGE),
    "basic": ("ResNet", "ImageClassification", BASIC),
    "bottleneck": ("ResNet", "ImageClassification", NARROW),
}
PUBLISHED = {
    "bert-base": ("Bert", "MaskedLM", {}),
    "bert-base-classifier": ("Bert", "SequenceClassification", {}),
    "bert-large": (
        "Bert",
        "MaskedLM",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "vit-b-16": ("ViT", "ImageClassification", {"num_labels": 1000}),
    "resnet-18": (
        "ResNet",
        "ImageClassification",
        {"num_labels": 1000, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"},
    ),
    "resnet-50": ("ResNet", "ImageClassification", {"num_labels": 1000}),
}
NAMES = (
    (r"^(bert|vit|resnet)\.", ""),
    (r"embeddings\.word_embeddings", "embedding.tokens"),
    (r"embeddings\.position_embeddings", "embedding.positions"),
    (r"embeddings\.token_type_embeddings", "embedding.types"),
    (r"embeddings\.LayerNorm", "embedding.norm"),
    (r"embeddings\.cls_token", "embedding.class_token"),
    (r"embeddings\.patch_embeddings\.projection", "embedding.patches"),
    (r"encoder\.layer\.", "layers."),
    (r"attention\.self\.(.)\w+", r"attention.\1"),
    (r"attention\.output\.dense", "attention.out"),
    (r"attention\.output\.LayerNorm", "norms.attention_sum_norm"),
    (r"attention\.(.)_proj", r"attention.\1"),
    (r"attention\.o\.", "attention.out."),
    (r"output\.LayerNorm", "norms.ffn_sum_norm"),
    (r"intermediate\.dense|mlp\.fc1", "ffn.up"),
    (r"(?<!attention\.)output\.dense|mlp\.fc2", "ffn.down"),
    (r"layernorm_before", "norms.attention_norm"),
    (r"layernorm_after", "norms.ffn_norm"),
    (r"^layernorm", "head.norm"),
    (r"cls\.predictions\.transform\.dense", "head.transform"),
    (r"cls\.predictions\.transform\.LayerNorm", "head.norm"),
    (r"cls\.predictions\.bias", "head.bias"),
    (r"cls\.predictions\.decoder", "head.output"),
    (r"pooler\.dense", "head.pooler"),
    (r"^classifier(\.1)?", "head.output"),
    (r"embedder\.embedder\.convolution", "embedding.convolutions.stem"),
    (r"embedder\.embedder\.normalization", "embedding.norms.stem"),
)
PIECES = {"0": "first", "1": "second", "2": "third"}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def reference():
    """Makes a model of the reference implementation, skipped where that is not installed."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("transformers")
    logging.disable(logging.NOTSET)

    def made(family, task, options, device="cpu"):
        config = getattr(library, f"{family}Config")(**options)
        config._attn_implementation = "eager"
        torch.manual_seed(0)
        with torch.device(device):
            found = getattr(library, f"{family}For{task}")(config)
        config.architectures = [type(found).__name__]
        return found.eval(), config.to_dict()

    return made


def planned(config):
    """The planner's model of a configuration."""
    found = shape_of_config(config, "config.json", "reference")
    return build(found) if isinstance(found, Shape) else residual_network.build(found)


def renamed(name, depths):
    """A parameter of the reference by its name in the twin; blocks of a residual network count through."""
    for pattern, new in NAMES:
        name = re.sub(pattern, new, name)
    found = re.fullmatch(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(shortcut|layer\.\d)\.(\w+)\.(\w+)", name)
    if found is None:
        return name
    stage, block, piece, kind, last = found.groups()
    where = sum(depths[: int(stage)]) + int(block)
    part = PIECES.get(piece.removeprefix("layer."), piece)
    return f"layers.{where}.{'convolutions' if kind == 'convolution' else 'norms'}.{part}.{last}"


def twin_of(model, config, plan):
    """The twin with the weights of the reference, all of them used."""
    twin = build_twin(plan)
    weights = {renamed(name, config.get("depths", [])): value for name, value in model.state_dict().items()}
    weights = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    if plan.predicts == "masked":
        assert torch.equal(weights.pop("head.output.bias"), weights["head.bias"])
    for name in {"embedding.positions", "embedding.class_token"} & weights.keys():
        value = weights.pop(name)
        weights[f"{name}.weight" if name.endswith("positions") else name] = value.squeeze()
    twin.load_state_dict(weights)
    return twin.eval()


@pytest.mark.parametrize("name", CASES)
def test_the_same_weights_give_the_same_output(reference, name):
    """Every parameter has its place in the twin, and the logits agree; text with padding and token types."""
    model, config = reference(*CASES[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # biases and gains are not what they start from
    plan = planned(config)
    twin = twin_of(model, config, plan)
    assert plan.total_parameters() == sum(each.numel() for each in model.parameters())
    with torch.no_grad():
        if plan.embedding.takes:
            images = torch.randn(3, *plan.embedding.takes)
            expected, found = model(images).logits, twin(images)
        else:
            tokens, types = torch.randint(0, 64, (3, 17)), torch.randint(0, 2, (3, 17))
            there = torch.arange(17) < torch.tensor([[17], [9], [4]])
            expected = model(tokens, attention_mask=there.long(), token_type_ids=types).logits
            found = twin(tokens, there=there, types=types)
            if plan.predicts == "masked":
                expected, found = expected[there], found[there]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_batch_norms_train_alike(reference):
    """In training mode too: the same output, gradients of the weights and running statistics."""
    model, config = reference(*CASES["basic"])
    plan = planned(config | {"image_size": 32})
    twin = twin_of(model, config, plan).train()
    images = torch.randn(4, 3, 32, 32)
    expected, found = model.train()(images).logits, twin(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    expected.square().sum().backward()
    found.square().sum().backward()
    gradients = {renamed(name, config["depths"]): each.grad for name, each in model.named_parameters()}
    for name, each in twin.named_parameters():
        torch.testing.assert_close(each.grad, gradients[name], rtol=1e-3, atol=1e-4)
    state = {renamed(name, config["depths"]): value for name, value in model.state_dict().items()}
    for name, value in twin.named_buffers():
        torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_count_and_cost_what_the_reference_does(reference, name):
    """Parameters of the catalogue and of the configuration, and forward FLOP counted on the meta device, exact."""
    model, config = reference(*PUBLISHED[name], device="meta")
    entry = catalog.load(name)
    assert planned(config).total_parameters() == entry.total_parameters()
    assert entry.total_parameters() == sum(each.numel() for each in model.parameters())
    seq_len = entry.sequence or 128
    shape = entry.embedding.takes or (seq_len,)
    inputs = torch.zeros(1, *shape, device="meta", dtype=torch.float32 if entry.embedding.takes else torch.long)
    with counter() as counted, torch.no_grad():
        model(inputs)
    assert counted.get_total_flops() == round(seq_len * entry.flops_per_token(seq_len, causal=False) / 3)
