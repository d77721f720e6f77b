"""Layer kinds: the parts state the parameters, the traffic and the tensors kept that their mathematics implies."""

from __future__ import annotations

import pytest

from planner.layers.attention import Heads, attention
from planner.layers.base import Core, Linear, Parts, Pointwise, Vector
from planner.layers.ffn import ffn
from planner.layers.head import head, mtp
from planner.layers.linear_attention import linear_attention
from planner.layers.mla import Latent, mla
from planner.layers.moe import Mixture, moe
from planner.layers.norm import VECTORS, norm
from planner.model import Layer
from planner.shape import Shape, build

HIDDEN, HEADS, KV, DIM, FFN = 64, 8, 2, 8, 160
BYTES = 2  # bf16


def parameters(parts: Parts) -> int:
    """All parameters of some parts."""
    return sum(Layer("x", parts).parameters().values())


def traffic(parts: Parts, direction: str) -> int:
    """Bytes per token that the memory-bound parts move in bf16."""
    return sum(BYTES * p.width * p.active * getattr(p, direction) for p in parts if isinstance(p, Pointwise))


def kept(parts: Parts) -> int:
    """Bytes per token that the linears' inputs and the memory-bound parts keep in bf16."""
    inputs = sum(BYTES * p.inputs * p.active for p in parts if isinstance(p, Linear) and p.saves)
    return inputs + sum(BYTES * p.width * p.active * p.saved for p in parts if isinstance(p, Pointwise))


def dense_layer(*, gated: bool) -> Parts:
    """The parts of a small dense layer."""
    sizes = {"heads": HEADS, "kv_heads": KV, "head_dim": DIM, "ffn": FFN}
    shape = Shape("s", "s", layers=1, hidden=HIDDEN, vocab=9, gated=gated, **sizes)
    return build(shape).kinds[0].parts


@pytest.mark.parametrize("gated", [True, False])
def test_traffic_of_a_dense_layer_is_that_of_its_tensors(gated: bool) -> None:  # noqa: FBT001
    """Forward 20 h + (4 + 2 g) f + 8 (a + kv) d bytes; backward 32 h + (6 + 4 g) f + 8 (a + kv) d."""
    parts = dense_layer(gated=gated)
    heads = 8 * (HEADS + KV) * DIM
    assert traffic(parts, "forward") == 20 * HIDDEN + (4 + 2 * gated) * FFN + heads
    assert traffic(parts, "backward") == 32 * HIDDEN + (6 + 4 * gated) * FFN + heads


@pytest.mark.parametrize("gated", [True, False])
def test_a_dense_layer_keeps_each_tensor_once(gated: bool) -> None:  # noqa: FBT001
    """Two norm inputs and outputs, the core's output, 1 + g activation inputs, their output; q, k, v are the core's."""
    expected = 4 * HIDDEN + HEADS * DIM + (1 + gated) * FFN + FFN
    assert kept(dense_layer(gated=gated)) == BYTES * expected


def test_a_parallel_layer_keeps_its_norm_output_once() -> None:
    """Attention and feed-forward read one tensor: one norm input and one norm output less than in sequence."""
    shape = Shape("s", "s", 1, HIDDEN, 9, HEADS, head_dim=DIM, ffn=FFN)
    parallel = Shape("s", "s", 1, HIDDEN, 9, HEADS, head_dim=DIM, ffn=FFN, norm_places="parallel")
    difference = kept(build(shape).kinds[0].parts) - kept(build(parallel).kinds[0].parts)
    assert difference == 2 * BYTES * HIDDEN


def test_routing_moves_sixteen_bytes_a_channel_and_expert() -> None:
    """Permute and unpermute move 16 k h bytes per token over both passes."""
    parts = moe(Mixture(HIDDEN, experts=16, topk=4, width=32))
    moved = tuple(p for p in parts if p.name in ("permute", "unpermute"))
    assert traffic(moved, "forward") + traffic(moved, "backward") == 16 * 4 * HIDDEN


def test_a_mixture_keeps_inputs_and_logits_but_not_its_output() -> None:
    """Kept: x once, logits in fp32, and per chosen expert its input, 1 + g activation inputs and the output of that."""
    parts = moe(Mixture(HIDDEN, experts=16, topk=4, width=32, shared_width=48))
    expected = HIDDEN + 2 * 16 + 4 * (HIDDEN + 3 * 32) + 3 * 48
    assert kept(parts) == BYTES * expected


@pytest.mark.parametrize("kind", list(VECTORS))
def test_a_norm_has_its_vectors(kind: str) -> None:
    """RMS norms have a gain, layer norms a bias too, bare ones nothing; all keep their input."""
    parts = norm("n", HIDDEN, kind)
    assert parameters(parts) == {"rms": 1, "layer": 2, "layer_unbiased": 1, "bare": 0}[kind] * HIDDEN
    assert kept(parts) == BYTES * HIDDEN


def test_attention_options_add_their_vectors() -> None:
    """Biases, norms of q and k and sinks add exactly their lengths."""
    plain = parameters(attention(Heads(HIDDEN, HEADS, KV, DIM)))
    assert plain == HIDDEN * DIM * (2 * HEADS + 2 * KV)
    added = {
        "qkv_bias": (True, DIM * (HEADS + 2 * KV)),
        "out_bias": (True, HIDDEN),
        "sinks": (True, HEADS),
        "own_kv": (False, -HIDDEN * DIM * 2 * KV),
    }
    for option, (value, length) in added.items():
        assert parameters(attention(Heads(HIDDEN, HEADS, KV, DIM, **{option: value}))) == plain + length
    for kind, length in (("head", 2 * DIM), ("full", (HEADS + KV) * DIM)):
        assert parameters(attention(Heads(HIDDEN, HEADS, KV, DIM, qk_norm=kind))) == plain + length


@pytest.mark.parametrize("q_rank", [0, 24])
def test_latent_attention_counts_its_formula(q_rank: int) -> None:
    """Parameters follow the formula of the docstring, with and without query compression."""
    nope, rope, v_dim, kv_rank = 8, 4, 6, 16
    query = HIDDEN * q_rank + q_rank + q_rank * HEADS * (nope + rope) if q_rank else HIDDEN * HEADS * (nope + rope)
    keys = HIDDEN * (kv_rank + rope) + kv_rank + kv_rank * HEADS * (nope + v_dim)
    parts = mla(Latent(HIDDEN, HEADS, q_rank, kv_rank, nope, rope, v_dim))
    assert parameters(parts) == query + keys + HEADS * v_dim * HIDDEN


def test_selective_recompute_can_rebuild_the_latent_projections() -> None:
    """The two up-projections and the core are marked as rebuilt, the down-projections are not."""
    parts = mla(Latent(HIDDEN, HEADS, 24, 16, 8, 4, 6))
    assert {p.name for p in parts if isinstance(p, Linear | Core) and p.rebuilt} == {"q_up", "kv_up", "core"}


def test_lightning_attention_counts_its_formula() -> None:
    """5 h a d matrices and one gain over all heads; the work doesn't grow with the sequence."""
    layer = Layer("x", linear_attention(HIDDEN, HEADS, DIM))
    assert sum(layer.parameters().values()) == 5 * HIDDEN * HEADS * DIM + HEADS * DIM
    assert layer.attention_flops(100, causal=True) == layer.attention_flops(10**6, causal=False)


@pytest.mark.parametrize(("gated", "bias"), [(True, False), (False, True), (True, True)])
def test_a_feed_forward_block_counts_its_formula(gated: bool, bias: bool) -> None:  # noqa: FBT001
    """(2 + g) h f weights and (1 + g) f + h biases."""
    expected = (2 + gated) * HIDDEN * FFN + bias * ((1 + gated) * FFN + HIDDEN)
    assert parameters(ffn(HIDDEN, FFN, gated=gated, bias=bias)) == expected


def test_mixture_options_add_their_parameters() -> None:
    """Router bias and correction, expert biases and the gate of the shared expert add exactly their lengths."""
    sizes = {"hidden": HIDDEN, "experts": 16, "topk": 4, "width": 32, "shared_width": 48}
    plain = parameters(moe(Mixture(**sizes)))
    added = {
        "router_bias": 16,
        "router_correction": 16,
        "expert_bias": 16 * (2 * 32 + HIDDEN),
        "shared_gate": HIDDEN,
        "shared_bias": 2 * 48 + HIDDEN,
    }
    for option, length in added.items():
        assert parameters(moe(Mixture(**sizes, **{option: True}))) == plain + length


def test_a_prediction_module_adds_a_projection_and_three_norms() -> None:
    """MTP has 2 h² + 3 norms more than the layer it wraps."""
    inner = ffn(HIDDEN, FFN, gated=True)
    assert parameters(mtp(HIDDEN, "rms", inner)) - parameters(inner) == 2 * HIDDEN**2 + 3 * HIDDEN


def test_the_loss_moves_sixteen_bytes_a_logit() -> None:
    """Both passes move 16 bytes a logit; what the loss holds depends on the stack and is counted with its stage."""
    loss = tuple(p for p in head(HIDDEN, 1000, "rms") if p.name == "loss")
    assert kept(loss) == 0
    assert traffic(loss, "forward") + traffic(loss, "backward") == 16 * 1000


def test_vectors_of_experts_are_not_silently_dropped() -> None:
    """A vector with copies counts all of them, and the active ones for a token."""
    layer = Layer("x", (Vector("v", "experts", 5, copies=8, active=2, expert=True),))
    assert (layer.parameters()["experts"], layer.active_parameters()["experts"]) == (40, 10)
