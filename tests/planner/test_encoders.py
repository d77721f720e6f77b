"""BERT, ViT and residual networks: published counts and work, the rules for them, and one set of formulas for all."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from hwprofiles.faults import InputError
from planner import catalog, residual_network
from planner.estimate import estimate, evaluate, take, units
from planner.layers.base import Convolution
from planner.layout import layout, stack
from planner.memory.activations import layer_activations
from planner.plan import prepare
from planner.residual_network import ResidualNetwork
from planner.rules import broken, rules
from planner.search.run import Query, search
from planner.shape import Shape, build
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import CONVOLUTIONAL, PICTURES, case, grid, model, setting

# Parameters: transformers 5.24.0 on the meta device. Multiply-adds of one forward pass: the tables of torchvision's
# published weights, whose GFLOPS are multiply-adds.
PUBLISHED = {
    "bert-base": (109_514_298, None),
    "bert-base-classifier": (109_483_778, None),
    "bert-large": (335_174_458, None),
    "bert-small": (28_795_194, None),
    "resnet-18": (11_689_512, 1.814e9),
    "resnet-50": (25_557_032, 4.089e9),
    "vit-b-16": (86_567_656, 17.564e9),
    "vit-l-16": (304_326_632, 61.555e9),
}
ENCODER = Shape(
    "encoder",
    "test",
    layers=6,
    hidden=512,
    vocab=4096,
    heads=8,
    ffn=2048,
    gated=False,
    tied=True,
    norm="layer",
    norm_places="add_norm",
    positions=2048,
    token_types=2,
    embedding_norm=True,
    causal=False,
    rotary=False,
    predicts="masked",
)
CLASSIFIER = replace(ENCODER, name="classifier", tied=False, predicts="classes", classes=9, pooled=True)
SETTINGS = (
    (ENCODER, Workload(2048, 64, 1e9)),
    (CLASSIFIER, Workload(2048, 64, 1e9)),
    (PICTURES, Workload(197, 64, 1e9)),
    (CONVOLUTIONAL, Workload(1, 64, 1e9)),
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_and_work(name):
    """Parameters to the last one; multiply-adds of a forward pass to a thousandth of what torchvision prints."""
    parameters, products = PUBLISHED[name]
    found = catalog.load(name)
    assert found.total_parameters() == found.total_active() == parameters
    if products is not None:
        forward = found.sequence * found.flops_per_token(found.sequence, causal=False) / 3
        assert forward / 2 == pytest.approx(products, rel=2e-3)


def test_bert_without_heads_is_the_published_encoder():
    """BERT-base has 109,482,240 parameters with its pooler and without a head for a task."""
    classifier = catalog.load("bert-base-classifier").total_parameters() - (768 * 2 + 2)
    masked = catalog.load("bert-base").total_parameters() - (768 * 768 + 768 + 2 * 768 + 30522) + (768 * 768 + 768)
    assert classifier == masked == 109_482_240


@pytest.mark.parametrize(("shape", "work"), SETTINGS, ids=lambda x: getattr(x, "name", ""))
def test_one_plan_and_many_agree_bit_for_bit(shape, work):
    """Every legal plan of a grid, priced alone and in a batch, with and without recompute."""
    for recompute in ("none", "selective", "full"):
        where = setting(shape, 16, Choices(recompute=recompute, sequence_parallel=shape is not PICTURES), work)
        rows = grid(16, tp=(1, 2, 4), pp=(1, 2, 4), cp=(1, 2), micro_batch=(1, 2))
        kept = np.ones(np.size(rows.tp), dtype=bool)
        for rule in rules(where.choices):
            kept &= np.broadcast_to(rule.holds(case(where, rows)), kept.shape)
        rows = rows.take(np.flatnonzero(kept))
        index = np.arange(np.size(rows.tp))
        shapes = [layout(where.model, work.seq_len, int(pp), 1) for pp in np.asarray(rows.pp)]
        every = evaluate(units(where, rows), stack(shapes, index), where, rows)
        assert np.size(rows.tp) >= 6
        for row in range(np.size(rows.tp)):
            alone = estimate(where, rows.take(row))
            assert float(alone.step.total) == float(take(every.step.total, np.array(row)))
            assert float(alone.peak) == float(take(every.peak, np.array(row)))
            assert 0.0 < float(alone.step.total) < math.inf


def test_plans_of_a_grid_respect_the_rules():
    """Convolutions are never cut, whole sequences neither; masked language models may be."""
    for shape, work in SETTINGS:
        where = setting(shape, 16, Choices(sequence_parallel=False), work)
        legal = {axis: not broken(case(where, Degrees(16, **{axis: 2}))) for axis in ("tp", "cp", "pp")}
        assert legal == {"tp": shape is not CONVOLUTIONAL, "cp": shape is ENCODER, "pp": True}


def test_a_search_finds_plans_for_images():
    """Only legal axes are tried, and the best plan comes first."""
    plan = prepare("resnet-50", "h100-superpod", 16, Workload(1, 256, 1e9), Choices(), "torch-fsdp")
    found = search(Query(plan, max_micro_batch=16))
    assert found.plans
    assert {int(each.degrees.tp) for each in found.plans} == {1}
    assert {int(each.degrees.cp) for each in found.plans} == {1}


def test_images_have_one_length_and_positions_an_end():
    """A length that the model can't take is refused when the plan is prepared."""
    cases = (("vit-b-16", 4096, "197"), ("resnet-50", 2, "sequence of 1"), ("bert-base", 513, "512"))
    for name, seq_len, reason in cases:
        with pytest.raises(InputError, match=reason):
            prepare(name, "h100-superpod", 16, Workload(seq_len, 64, 1e9), Choices(), "nemo")


def test_what_crosses_between_stages_is_the_widest_tensor():
    """Hidden states of a token, or between convolutions the largest image."""
    assert model(ENCODER).boundary == 512
    assert model(CONVOLUTIONAL).boundary == max(math.prod(kind.takes) for kind in model(CONVOLUTIONAL).kinds)


def test_full_recompute_keeps_the_images_that_enter():
    """A residual block keeps its input, two bytes a value."""
    where = setting(CONVOLUTIONAL, 16, Choices(recompute="full"), Workload(1, 64, 1e9))
    for kind in where.model.kinds:
        kept = layer_activations(kind, where, Degrees(16, micro_batch=4), "full")
        assert kept == 4 * 2 * math.prod(kind.takes)


def test_convolutions_keep_each_image_once():
    """The input of a strided convolution is kept whole, however often its windows see a position."""
    parts = [part for kind in model(CONVOLUTIONAL).kinds for part in kind.parts if isinstance(part, Convolution)]
    for part in parts:
        assert part.inputs * part.rows * part.density == pytest.approx(part.channels * part.side**2)
    assert any(part.density > 1.0 for part in parts)  # 1 x 1, two apart: most of what is kept is never read
    assert any(part.density < 0.2 for part in parts)


def test_pooling_reads_one_token_of_each_sequence():
    """A classifier's work and memory do not grow with the sequence; the layers' do."""
    head = model(CLASSIFIER).head
    assert head.linear_flops() == 0
    assert head.sequence_flops() == 2 * (512 * 512 + 512 * 9)
    short, long = (setting(CLASSIFIER, 16, workload=Workload(length, 64, 1e9)) for length in (128, 2048))
    degrees = Degrees(16, micro_batch=2)
    assert layer_activations(head, short, degrees, "none") == layer_activations(head, long, degrees, "none")


def test_a_configuration_is_its_catalogue_entry(tmp_path):
    """ResNet-50 and ViT-B/16 from their published configurations are the entries but for name and source."""
    names = {str(number): f"class {number}" for number in range(1000)}
    files = {
        "resnet-50": {"model_type": "resnet", "id2label": names, "architectures": ["ResNetForImageClassification"]},
        "vit-b-16": {
            "model_type": "vit",
            "id2label": names,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
    }
    for name, content in files.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        entry = catalog.load(name)
        assert replace(catalog.load(path), family=entry.family) == entry


BAD = [
    ({"widths": (8,)}, "depths"),
    ({"widths": (6, 8), "bottleneck": True}, "widths"),
    ({"stem_kernel": 4}, "stem_kernel"),
    ({"image": 0}, "image"),
    ({"depths": ()}, "depths"),
    ({"stem_pool": 1}, "stem_pool"),
]


@pytest.mark.parametrize(("change", "key"), BAD)
def test_a_bad_network_is_refused_by_key(change, key):
    """Types and ranges, and what does not go together."""
    network = replace(ResidualNetwork("bad", 16, (8, 8), (1, 1), 5), **change)
    with pytest.raises(InputError) as caught:
        residual_network.build(network)
    assert [fault.where for fault in caught.value.faults] == [f"bad: {key}"]


def test_a_bad_table_names_all_its_faults(tmp_path):
    """An unknown key, a missing one and a missing source come at once."""
    path = tmp_path / "net.toml"
    path.write_text('architecture = "resnet"\nimage = 32\nwidths = [8]\ndepths = [1]\nstrid = 2\n')
    with pytest.raises(InputError) as caught:
        catalog.load(path)
    places = {fault.where.split(": ")[1] for fault in caught.value.faults}
    assert places == {"strid", "classes", "source"}


WRONG = [
    ({"predicts": "tokens"}, "predicts"),
    ({"vocab": 0}, "vocab"),
    ({"classes": 3}, "classes"),
    ({"sinks": True}, "causal"),
    ({"mtp_layers": 1}, "mtp_layers"),
]


@pytest.mark.parametrize(("change", "key"), WRONG)
def test_what_does_not_go_together_is_refused(change, key):
    """An encoder can't predict the next token, has no sinks, and only a classifier has classes."""
    with pytest.raises(InputError, match=key):
        build(replace(ENCODER, **change))
