"""Counts and FLOP of models: sums that must hold for any shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprofiles.faults import InputError
from planner.catalog import LABELS
from planner.layers.base import Core
from planner.model import core_flops
from planner.shape import NORM_PLACES, REACHES, Shape, build


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Legal shapes of every kind of attention, feed-forward block and norm."""
    kv_heads = draw(st.integers(1, 4))
    latent = draw(st.booleans())
    sizes = st.integers(1, 64)
    experts = draw(st.sampled_from([0, 4, 8]))
    ranks = ("q_rank", "kv_rank", "nope_dim", "rope_dim", "v_dim")
    mixture = {"experts": experts, "topk": draw(st.integers(1, 4)), "moe_ffn": draw(sizes)} if experts else {}
    layers = draw(st.integers(1, 6))
    norm_places = draw(st.sampled_from(sorted(NORM_PLACES)))
    masked = norm_places == "add_norm" or draw(st.booleans())
    return Shape(
        name="drawn",
        family="drawn",
        layers=layers,
        hidden=draw(sizes),
        vocab=draw(sizes),
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        head_dim=draw(sizes),
        ffn=draw(sizes),
        gated=draw(st.booleans()),
        tied=draw(st.booleans()),
        norm=draw(st.sampled_from(["rms", "layer", "bare"])),
        norm_places=norm_places,
        predicts="masked" if masked else "tokens",
        token_types=draw(st.integers(0, 2)),
        qkv_bias=draw(st.booleans()),
        positions=draw(st.integers(0, 9)),
        reaches=("full",) if latent else tuple(draw(st.lists(st.sampled_from(REACHES), min_size=1, max_size=3))),
        window=draw(sizes),
        chunked=draw(st.booleans()),
        shared_experts=draw(st.integers(0, 2)) if experts else 0,
        first_dense=draw(st.integers(0, layers - 1)),
        mtp_layers=0 if masked else draw(st.integers(0, 2)),
        **mixture,
        **({"attention": "mla", **{rank: draw(sizes) for rank in ranks}} if latent else {}),
    )


@given(shapes())
def test_parameters_by_label_sum_to_the_total(shape: Shape) -> None:
    """Every parameter has one of the known labels; all but mtp sum to the total, and active never exceeds it."""
    model = build(shape)
    parts = model.parameters()
    assert set(parts) <= set(LABELS)
    assert sum(parts.values()) - parts["mtp"] == model.total_parameters()
    assert model.total_active() <= model.total_parameters()
    assert (model.total_active() == model.total_parameters()) == (shape.experts in (0, shape.topk))


@given(shapes(), st.integers(1, 4096))
def test_causal_work_never_exceeds_full_work(shape: Shape, seq_len: int) -> None:
    """Leaving masked scores out only removes work."""
    model = build(shape)
    assert 0 < model.flops_per_token(seq_len, causal=True) <= model.flops_per_token(seq_len, causal=False)


@given(shapes(), st.integers(2, 4))
def test_counts_of_layers_scale_with_the_layers(shape: Shape, times: int) -> None:
    """Repeating the stack repeats everything between embedding and head."""
    plain = replace(shape, first_dense=0, mtp_layers=0, layers=len(shape.reaches))
    one, many = build(plain), build(replace(plain, layers=times * plain.layers))
    ends = sum((one.embedding.parameters() + one.head.parameters()).values())
    ends -= one.hidden * one.vocab * shape.tied
    assert many.total_parameters() - ends == times * (one.total_parameters() - ends)


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 64), st.integers(1, 64), st.integers(1, 10_000))
def test_grouped_attention_work_is_its_formula(group: int, kv: int, dim: int, ffn: int, seq_len: int) -> None:
    """6 FLOP per active weight of a matrix and 12 · layers · heads · d · s for full attention (Narayanan 2021)."""
    heads, hidden, vocab, layers = group * kv, 32, 50, 3
    shape = Shape("s", "s", layers, hidden, vocab, heads, kv_heads=kv, head_dim=dim, ffn=ffn)
    weights = layers * (hidden * dim * (2 * heads + 2 * kv) + 3 * hidden * ffn) + hidden * vocab
    full = 6 * weights + 12 * layers * heads * dim * seq_len
    assert build(shape).flops_per_token(seq_len, causal=False) == full
    half = 6 * weights + 6 * layers * heads * dim * seq_len
    assert build(shape).flops_per_token(seq_len, causal=True) == half


@given(st.integers(1, 300), st.integers(1, 300))
def test_windows_count_the_keys_that_tokens_reach(seq_len: int, window: int) -> None:
    """A causal window's reach is the mean over the sequence of the keys behind, in the limit of long sequences."""
    core = Core("c", 1, 1, 1, 1, window=window)
    exact = sum(min(i + 0.5, window) for i in range(seq_len)) / seq_len
    assert core_flops(core, seq_len, causal=True) / 4 == pytest.approx(exact, abs=0.2)
    assert core_flops(core, seq_len, causal=False) / 4 == min(seq_len, window)


def test_blocks_reach_half_of_themselves() -> None:
    """In chunked attention a token sees half of its block on average, less than in a sliding window."""
    sliding, chunked = (Core("c", 1, 1, 1, 1, window=64, chunked=on) for on in (False, True))
    assert core_flops(chunked, 1024, causal=True) == 4 * 32
    assert core_flops(sliding, 1024, causal=True) == 4 * 62
    assert core_flops(chunked, 32, causal=True) == core_flops(sliding, 32, causal=True)


def test_tied_weights_count_once_but_work_twice() -> None:
    """A tied output matrix has no parameters of its own and the same FLOP."""
    untied = Shape("s", "s", 2, 16, 100, 2, ffn=32)
    models = [build(untied), build(replace(untied, tied=True))]
    assert models[0].total_parameters() - models[1].total_parameters() == 16 * 100
    assert models[0].flops_per_token(8, causal=True) == models[1].flops_per_token(8, causal=True)


def test_a_prediction_module_works_like_a_layer_and_a_head() -> None:
    """MTP adds FLOP of its projection, of one layer and of the output matrix, and can be left out."""
    model = build(Shape("s", "s", 2, 16, 100, 2, ffn=32, mtp_layers=1))
    plain = build(Shape("s", "s", 2, 16, 100, 2, ffn=32))
    assert model.flops_per_token(8, causal=True, mtp=False) == plain.flops_per_token(8, causal=True)
    layer = plain.kinds[0]
    added = layer.linear_flops() + layer.attention_flops(8, causal=True) + 2 * 2 * 16 * 16 + 2 * 16 * 100
    assert model.flops_per_token(8, causal=True) - plain.flops_per_token(8, causal=True) == 3 * added


GOOD = Shape("good", "f", 4, 64, 100, 4, ffn=96, experts=8, topk=2, moe_ffn=32, first_dense=1)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"layers": 0}, "layers"),
        ({"layers": 10**12}, "layers"),
        ({"hidden": -1}, "hidden"),
        ({"hidden": float("nan")}, "hidden"),
        ({"vocab": True}, "vocab"),
        ({"heads": 3}, "heads"),
        ({"kv_heads": 3}, "kv_heads"),
        ({"topk": 9}, "topk"),
        ({"topk": 0}, "topk"),
        ({"moe_ffn": 0}, "moe_ffn"),
        ({"experts": 0, "topk": 0}, "experts"),
        ({"experts": "8"}, "experts"),
        ({"ffn": 0}, "ffn"),
        ({"first_dense": 5}, "first_dense"),
        ({"first_dense": 4}, "experts"),
        ({"moe_every": 0}, "moe_every"),
        ({"dense_layers": (4,)}, "dense_layers"),
        ({"dense_layers": 4}, "dense_layers"),
        ({"reaches": ("windows",)}, "reaches"),
        ({"reaches": "full"}, "reaches"),
        ({"reaches": ("window",)}, "window"),
        ({"attention": "mla"}, "kv_rank"),
        ({"attention": "mha"}, "attention"),
        ({"norm": "group"}, "norm"),
        ({"shared_gate": True}, "shared_gate"),
        ({"tied": True, "head_bias": True}, "head_bias"),
        ({"gated": 1}, "gated"),
    ],
)
def test_an_illegal_shape_is_refused_by_key(changes: dict[str, object], key: str) -> None:
    """Every rule of a shape names the field that breaks it."""
    assert build(GOOD).layers == GOOD.layers
    with pytest.raises(InputError, match=f"good: {key}[ :]"):
        build(replace(GOOD, **changes))  # type: ignore[arg-type]


def test_all_faults_of_a_shape_come_at_once() -> None:
    """Three bad values are three faults."""
    with pytest.raises(InputError) as caught:
        build(replace(GOOD, hidden=0, vocab=-3, norm="rsm"))
    assert len(caught.value.faults) == 3
    assert caught.value.faults[2].nearest == "rms"
