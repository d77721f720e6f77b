"""What compressed models store and compute, and what compressing costs while they train."""

from dataclasses import replace

import numpy as np
import pytest

from planner import catalog, compression
from planner.compression.prune import SPARSE_GAIN
from planner.cost.layer import fake_quantize_time, linear_time, sparse_gain
from planner.errors import InputError
from planner.estimate import estimate
from planner.layers.base import Cut, Linear
from planner.strategy import Choices, Degrees
from tests.planner.models import DENSE, LATENT, MOE, SMALL, TIED, model, setting

AMOUNT = {"unstructured": "unstructured:0.75", "experts": "experts:4"}
PROJECTION = Linear("up", "dense_ffn", 512, 2048, Cut.COLUMN)


def method(name):
    """The method called `name`, with an amount where it takes one."""
    return compression.get(AMOUNT.get(name, name))


def test_one_matrix_by_hand():
    """A 3 x 260 matrix: codes, scales, indices, bitmap."""
    sizes = {name: method(name).matrix_bytes(3, 260) for name in compression.METHODS}
    assert sizes == {
        "none": 3 * 260 * 2,
        "experts": 3 * 260 * 2,
        "fp8": 3 * 260 + 4,
        "int8": 3 * 260 + 3 * 4,
        "int8-dynamic": 3 * 260 + 3 * 4,
        "int4": 3 * (130 + 3 * 4),
        "2:4": 3 * 130 * 2 + 98,
        "2:4-experts": 3 * 130 * 2 + 98,
        "unstructured": 98 + (780 - 585) * 2,
    }
    assert method("int4").matrix_bytes(1, 5) == 3 + 4
    assert method("2:4").matrix_bytes(2, 8, value=4.0) == 8 * 4 + 2


def test_the_indices_of_two_in_four_are_what_it_takes_to_pack_them():
    """Two bits a kept weight, packed for real from a random mask."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(16, 64))
    kept = np.sort(np.argsort(-np.abs(weights.reshape(-1, 4)), axis=1)[:, :2], axis=1).astype(np.uint8)
    bits = np.unpackbits(kept.reshape(-1, 1), axis=1)[:, -2:]
    packed = np.packbits(bits.reshape(-1))
    values = np.take_along_axis(weights.reshape(-1, 4), kept.astype(np.int64), axis=1).astype(np.float32)
    assert values.nbytes + packed.nbytes == method("2:4").matrix_bytes(16, 64, value=4.0)


@pytest.mark.parametrize("shape", SMALL, ids=lambda shape: shape.name)
def test_a_dense_model_stores_its_parameters(shape):
    """Nothing compressed: two bytes a parameter, tied once, prediction modules left out."""
    built = model(shape)
    assert method("none").stored_bytes(built) == 2 * built.total_parameters()


@pytest.mark.parametrize("name", sorted(set(compression.METHODS) - {"none", "experts"}))
@pytest.mark.parametrize("shape", SMALL, ids=lambda shape: shape.name)
def test_embedding_head_router_and_vectors_stay(shape, name):
    """Compressed bytes differ from the dense ones by those of attention and feed-forward matrices alone."""
    built, how = model(shape), method(name)
    saved = sum(
        part.copies * (2 * part.inputs * part.outputs - how.matrix_bytes(part.outputs, part.inputs))
        for kind in built.order
        for part in built.kinds[kind].parts
        if how.applies(part)
    )
    labels = {part.label for kind in built.kinds for part in kind.parts if how.applies(part)}
    assert labels <= {"attention", "dense_ffn", "experts", "shared_experts"}
    assert how.stored_bytes(built) == pytest.approx(2 * built.total_parameters() - saved)


def test_fewer_bits_store_less():
    """int4 < int8 < bf16, more sparsity less, 2:4 nine sixteenths of its matrices."""
    kimi = catalog.load("kimi-k2")
    order = ["int4", "fp8", "int8", "2:4", "none"]
    sizes = [compression.get(name).stored_bytes(kimi) for name in order]
    assert sizes == sorted(sizes)
    shares = [compression.get(f"unstructured:{share}").stored_bytes(kimi) for share in (0.9, 0.5, 0.1)]
    assert shares == sorted(shares)


def test_expert_pruning_takes_experts_and_their_rows_of_the_router():
    """Four of eight experts: half of the expert weights and router go, all else stays; active work is unchanged."""
    built = model(MOE)
    small = compression.get("experts:4").changed(built)
    before, after = built.parameters(), small.parameters()
    assert (after["experts"], after["router"]) == (before["experts"] / 2, before["router"] / 2)
    assert {k: v for k, v in after.items() if k not in ("experts", "router")} == {
        k: v for k, v in before.items() if k not in ("experts", "router")
    }
    assert small.active_parameters()["experts"] == built.active_parameters()["experts"]
    assert (small.experts, small.topk) == (4, 2)
    with_module = compression.get("experts:4").changed(model(LATENT))
    assert with_module.parameters()["mtp"] < model(LATENT).parameters()["mtp"]


@pytest.mark.parametrize("text", ["experts:1", "experts:9"])
def test_no_more_experts_go_than_a_token_visits(text):
    """Fewer experts than a token visits, or more than there are, are refused with the model's own counts."""
    with pytest.raises(InputError, match="top 2 of 8"):
        compression.get(text).changed(model(MOE))


def test_sparse_work_is_half_forward_and_for_the_input():
    """2:4 executes half of the forward and dgrad FLOP and all of wgrad; zeros anywhere save none."""
    dense = 2 * 512 * 2048
    assert compression.get("2:4").forward_flops(PROJECTION) == dense / 2
    assert compression.get("2:4").training_flops(PROJECTION) == 2 * dense
    assert compression.get("unstructured:0.9").training_flops(PROJECTION) == 3 * dense
    expert = replace(PROJECTION, label="experts", expert=True, copies=8)
    assert compression.get("2:4").forward_flops(expert) == dense
    assert compression.get("2:4-experts").forward_flops(expert) == dense / 2
    assert not compression.get("2:4").applies(replace(PROJECTION, inputs=510))


def test_the_gain_is_the_measured_one_and_below_the_peaks():
    """1.5 where the sparse peak is twice the dense one; a GPU whose peaks are closer gains no more than their ratio."""
    where = setting(DENSE, 8, Choices(prune="2:4"))
    assert sparse_gain(PROJECTION, where)[0] == SPARSE_GAIN < 2.0
    slow = replace(where.gpu, sparse={"bf16": 1.2 * where.gpu.peak["bf16"]})
    assert sparse_gain(PROJECTION, replace(where, cluster=replace(where.cluster, gpu=slow)))[0] == pytest.approx(1.2)
    assert sparse_gain(PROJECTION, setting(DENSE, 8)) == (1.0, 1.0)
    assert sparse_gain(PROJECTION, where)[1] == pytest.approx((1.0 + 0.125) / 2.0)


def test_only_forward_and_dgrad_get_faster():
    """Two of a large multiply's three products run at the gain: the backward pass is not faster by all of it."""
    wide = replace(PROJECTION, inputs=16384, outputs=16384)
    dense = linear_time(wide, setting(DENSE, 8), Degrees(8, micro_batch=8))
    sparse = linear_time(wide, setting(DENSE, 8, Choices(prune="2:4")), Degrees(8, micro_batch=8))
    assert dense[0] / sparse[0] == pytest.approx(SPARSE_GAIN, rel=0.02)
    assert dense[1] / sparse[1] == pytest.approx(2 / (1 + 1 / SPARSE_GAIN), rel=0.02)


def test_a_sparse_plan_is_faster_and_holds_more():
    """2:4 makes the step shorter and, while it trains, keeps both packed copies beside the weights: 2.25 bytes each."""
    degrees = Degrees(8, tp=2)
    dense, sparse = (estimate(setting(DENSE, 8, Choices(prune=name)), degrees) for name in ("none", "2:4"))
    assert sparse.step.compute < dense.step.compute
    pruned = sum(
        p.inputs * p.outputs for p in model(DENSE).kinds[0].parts if isinstance(p, Linear) and p.label != "router"
    )
    assert sparse.stages[0].parameters - dense.stages[0].parameters == pytest.approx(2.25 * 6 * pruned / 2)


def test_a_mask_takes_a_byte_and_no_time_of_the_multiplies():
    """Unstructured pruning: the same compute, one byte of mask a weight, its traffic once a step."""
    degrees = Degrees(8)
    dense, masked = (estimate(setting(DENSE, 8, Choices(prune=name)), degrees) for name in ("none", "unstructured:0.9"))
    assert masked.step.compute == dense.step.compute
    assert masked.step.optimizer > dense.step.optimizer
    pruned = 6 * sum(p.inputs * p.outputs for p in model(DENSE).kinds[0].parts if isinstance(p, Linear))
    assert masked.stages[0].parameters - dense.stages[0].parameters == pytest.approx(pruned)


def test_training_for_integers_moves_the_rounded_copies():
    """Four bytes a weight forward and again backward; dynamic activations four bytes an input more, forward only."""
    where = setting(DENSE, 8, Choices(quantize="int8"))
    rate = where.gpu.hbm_efficiency * where.gpu.hbm_bandwidth
    assert fake_quantize_time(PROJECTION, 100.0, 7.0, where) == pytest.approx((28.0 / rate, 28.0 / rate))
    dynamic = setting(DENSE, 8, Choices(quantize="int8-dynamic"))
    assert fake_quantize_time(PROJECTION, 100.0, 7.0, dynamic) == pytest.approx((428.0 / rate, 28.0 / rate))
    assert fake_quantize_time(replace(PROJECTION, label="head"), 100.0, 7.0, dynamic) == (0.0, 0.0)


def test_training_for_integers_holds_one_rounded_layer():
    """The largest layer's matrices in bf16, once, whatever the number of layers."""
    shape = replace(TIED, vocab=8)  # a layer at work is the fullest moment, not the loss
    plain, aware = (estimate(setting(shape, 8, Choices(quantize=name)), Degrees(8)) for name in ("none", "int4"))
    matrices = sum(p.inputs * p.outputs for p in model(shape).kinds[0].parts if isinstance(p, Linear))
    assert aware.stages[0].workspace - plain.stages[0].workspace == pytest.approx(2 * matrices)


def test_fp8_messages_halve_gathers_and_dispatch():
    """Parameters are gathered, and tokens sent to experts, in one byte; what comes back stays in bf16."""
    found = {}
    for messages in ("base", "fp8"):
        where = setting(MOE, 64, Choices(precision="fp8", messages=messages, zero=3))
        found[messages] = estimate(where, Degrees(64, ep=8)).step
    assert found["fp8"].expert < found["base"].expert
    assert found["fp8"].data < found["base"].data
    assert found["fp8"].compute == found["base"].compute


@pytest.mark.parametrize("name", sorted(compression.METHODS))
def test_every_method_cites(name):
    """A method says where its bytes are from, and what is published of it."""
    how = method(name)
    assert how.source
    assert compression.get(how.spelling) == how
    assert how.facts or name == "none"
    assert all("arXiv" in fact.source or "PyTorch" in fact.source for fact in how.facts)
