import pytest

torch = pytest.importorskip("torch")

from executor.flops import Counted, counter, expected_flops, layer_flops  # noqa: E402
from executor.layers.base import Spec  # noqa: E402
from executor.layers.block import Block  # noqa: E402
from executor.layers.router import Routing  # noqa: E402
from executor.model import build as build_twin  # noqa: E402
from planner import catalog  # noqa: E402
from planner.model import core_flops  # noqa: E402
from planner.shape import Shape, build  # noqa: E402
from tests.executor import families  # noqa: E402

SEQ_LEN = 128  # two chunks of linear attention, at most one window of any catalogue model


def tiny(**fields):
    """A small model."""
    sizes = {"layers": 2, "hidden": 32, "vocab": 64, "heads": 4, "kv_heads": 2, "ffn": 48}
    return build(Shape("tiny", "test", **{**sizes, **fields}))


def run(model, seq_len):
    """FLOP of the whole twin, forward and backward, on real tensors of the CPU."""
    twin = build_twin(model)
    tokens = torch.randint(0, model.vocab, (1, seq_len + 1))
    ahead = torch.stack([tokens[:, 1:]] * max(model.mtp_layers, 1), -1)
    with counter() as counted:
        twin(tokens[:, :-1], ahead=ahead).sum().backward()
    return counted.get_total_flops()


@pytest.mark.parametrize("name", catalog.names())
def test_layers_cost_what_the_planner_says(name):
    """Every kind of layer of every catalogue model, the ends and MTP: forward and backward, to the last FLOP."""
    model = catalog.load(name)
    seq_len = model.sequence or SEQ_LEN
    pictures = [model.embedding] if model.embedding.takes else []
    for layer in (*model.kinds, model.head, *pictures, *([model.mtp] if model.mtp else [])):
        counted = layer_flops(layer, seq_len)
        assert counted == expected_flops(layer, seq_len), layer.name
        if not any(getattr(part, "linear", False) for part in layer.parts):
            forward = round(seq_len * layer.forward_flops(seq_len, causal=False))
            assert counted == Counted(forward, 2 * forward), layer.name


@pytest.mark.parametrize(
    ("chunked", "seq_len", "reach"),
    [(True, 64, 16), (False, 64, 32), (False, 72, 72), (True, 16, 16), (False, 8, 8)],
)
def test_reach_of_windows(chunked, seq_len, reach):
    """A window of 16 costs its chunk, two windows when it slides in blocks, everything when it doesn't divide."""
    layer = tiny(reaches=("window",), window=16, chunked=chunked).kinds[0]
    core = Spec(layer.parts).core()
    counted = layer_flops(layer, seq_len)
    products = counted.forward - seq_len * layer.linear_flops()
    assert products == seq_len * 2 * core.heads * (core.qk_dim + core.v_dim) * reach
    assert counted == expected_flops(layer, seq_len)
    assert counted.backward == 2 * counted.forward


def test_linear_attention_is_the_recurrence_and_its_chunks():
    """4 · d · dv a token and head, less the state that the first chunk doesn't read and the last doesn't write.

    The backward pass runs it once more.
    """
    layer = tiny(reaches=("linear",)).kinds[0]
    core = Spec(layer.parts).core()
    inside = 2 * core.heads * 64 * (core.qk_dim + core.v_dim)
    state = core_flops(core, 256, causal=False)
    counted = layer_flops(layer, 256)
    core_forward = 256 * (inside + state) - 64 * state
    assert counted.forward == 256 * layer.linear_flops() + core_forward
    assert counted.backward == 2 * counted.forward + core_forward
    assert counted == expected_flops(layer, 256)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tied": True, "positions": 64, "norm": "layer", "gated": False, "ffn_bias": True, "qkv_bias": True},
        {"experts": 8, "topk": 2, "moe_ffn": 24, "shared_experts": 1, "first_dense": 1, "mtp_layers": 1},
        {"experts": 4, "topk": 1, "moe_ffn": 24, "expert_bias": True, "router_bias": True, "mtp_layers": 2},
        {"attention": "mla", "kv_heads": 0, "q_rank": 24, "kv_rank": 16, "nope_dim": 8, "rope_dim": 4, "v_dim": 8},
    ],
)
def test_whole_models_on_the_cpu(fields):
    """Forward and backward of a whole twin with the CPU's fused attention: the planner's FLOP per trained token."""
    model = tiny(**fields)
    expected = 64 * model.flops_per_token(64, causal=False)
    assert run(model, 64) == expected


@pytest.mark.parametrize("name", families.SHAPES)
def test_whole_encoders_on_the_cpu(name):
    """Three samples through BERT, ViT and residual networks: the planner's FLOP, but for the gradient of the images."""
    model = families.model(name)
    inputs, *_, types = families.batch(name, 0)
    text = not model.embedding.takes
    twin, seq_len = build_twin(model), families.workload(name).seq_len
    there = torch.ones(3, seq_len, dtype=torch.bool)
    with counter() as ahead:
        out = twin(inputs[:3], there=there, types=types[:3]) if text else twin(inputs[:3])
    with counter() as behind:
        out.sum().backward()
    forward = round(3 * seq_len * model.flops_per_token(seq_len, causal=False) / 3)
    assert ahead.get_total_flops() == forward
    assert behind.get_total_flops() == 2 * forward - 3 * model.embedding.sequence_flops()


def test_fused_and_plain_attention_count_alike():
    """The registered formula of the CPU's attention equals the matrix products of the meta device."""
    layer = tiny().kinds[0]
    block = Block(Spec(layer.parts), Routing())
    x = torch.randn(2, 32, 32, requires_grad=True)
    with counter() as ahead:
        out = block(x, torch.arange(32))
    with counter() as behind:
        out.sum().backward()
    plain = layer_flops(layer, 32, batch=2)
    assert (ahead.get_total_flops(), behind.get_total_flops()) == (plain.forward, plain.backward)
