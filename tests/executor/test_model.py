import pytest

torch = pytest.importorskip("torch")

from executor.model import build as build_twin  # noqa: E402
from hwprofiles.faults import InputError  # noqa: E402
from planner import catalog  # noqa: E402
from planner.shape import NORM_PLACES, Shape, build  # noqa: E402

SIZES = {"layers": 4, "hidden": 32, "vocab": 61, "heads": 4, "kv_heads": 2, "ffn": 48}
MIXTURE = {"experts": 8, "topk": 2, "moe_ffn": 24}


def tiny(**fields):
    """A small model."""
    return build(Shape("tiny", "test", **{**SIZES, **fields}))


def loss(twin, tokens, d=0):
    """A number that every logit changes."""
    length = tokens.size(1) - d
    ahead = torch.stack([tokens[:, 1 + i : 1 + i + length] for i in range(d)], -1) if d else None
    return twin(tokens[:, :length], ahead=ahead).logsumexp(-1).sum()


@pytest.mark.parametrize("name", catalog.names())
def test_parameters_of_the_catalogue(name):
    """Every catalogue model's twin has the planner's parameters, label by label and in total."""
    model = catalog.load(name)
    counts = build_twin(model, device="meta").parameter_counts()
    assert counts == +model.parameters()
    assert sum(counts.values()) == model.total_parameters() + counts["mtp"]


@pytest.mark.parametrize(
    "fields",
    [
        {"norm_places": "parallel", "gated": False, "norm": "layer_unbiased"},
        {"norm_places": "sandwich", "norm": "layer", "qk_norm": "full"},
        {"norm_places": "post", "norm": "bare", "qk_norm": "head"},
        {"norm_places": "pre_beside", **MIXTURE, "shared_ffn": 16, "shared_gate": True, "ffn_bias": True},
        {"attention": "mla", "kv_heads": 0, "kv_rank": 16, "nope_dim": 8, "rope_dim": 4, "v_dim": 6, "qkv_bias": True},
        {"reaches": ("linear", "full"), "head_bias": True, "qk_norm": "full"},
        {"reaches": ("full", "shared_kv"), "qk_norm": "head", "positions": 64, "embedding_norm": True, "tied": True},
        {"sinks": True, "reaches": ("window", "full"), "window": 8, "out_bias": True, "qkv_bias": True},
        {**MIXTURE, "router_correction": True, "router_bias": True, "expert_bias": True, "mtp_layers": 2},
    ],
)
def test_options_have_their_parameters_and_gradients(fields):
    """Options that few catalogue models use: counts by label, and every parameter is part of the loss."""
    model = tiny(**fields)
    twin = build_twin(model)
    assert twin.parameter_counts() == +model.parameters()
    loss(twin, torch.randint(0, 61, (2, 19)), model.mtp_layers).backward()
    unused = [name for name, each in twin.named_parameters() if each.grad is None and each.requires_grad]
    assert unused == []


def test_every_place_of_norms_is_a_different_model():
    """The places of norms are not only counted: each gives another function of the same weights."""
    tokens = torch.randint(0, 61, (1, 12))
    found = {
        places: build_twin(tiny(norm_places=places))(tokens).sum().item() for places in ("pre", "post", "sandwich")
    }
    assert len(set(found.values())) == 3
    assert set(found) < set(NORM_PLACES)


@pytest.mark.parametrize(
    "fields",
    [
        {"tied": True, **MIXTURE, "first_dense": 1, "shared_experts": 1, "mtp_layers": 1},
        {"reaches": ("full", "shared_kv"), "positions": 64},
    ],
)
def test_slices_run_as_the_whole(fields):
    """Two stages, built apart from the same seed, give the whole model's logits, bit for bit."""
    model = tiny(**fields)
    tokens = torch.randint(0, 61, (2, 14))
    ahead = tokens[:, 1:].unsqueeze(-1)
    whole = build_twin(model, seed=3)(tokens[:, :-1], ahead=ahead)
    first = build_twin(model, seed=3, layers=range(2), head=False, mtp=False)
    second = build_twin(model, seed=3, layers=range(2, 4), embedding=False)
    assert torch.equal(second(first(tokens[:, :-1]), ahead=ahead), whole)
    if model.tied:
        assert second.head.output.weight is second.embedding.tokens.weight
        apart = build_twin(model, seed=3, layers=range(2, 4), embedding=False, mtp=False)
        assert apart.embedding is None
        assert torch.equal(apart.head.output.weight, first.embedding.tokens.weight)


def test_head_after_predictions_of_an_earlier_stage():
    """A stage with the head alone takes the rows of the prediction modules, which come normed."""
    model = tiny(mtp_layers=2)
    tokens = torch.randint(0, 61, (2, 12))
    ahead = torch.stack((tokens[:, 1:-1], tokens[:, 2:]), -1)
    before = build_twin(model, head=False)(tokens[:, :-2], ahead=ahead)
    assert before.shape == (6, 10, 32)
    logits = build_twin(model, layers=range(0), embedding=False, mtp=False)(before)
    assert torch.equal(logits, build_twin(model)(tokens[:, :-2], ahead=ahead))


def test_first_values_are_the_names():
    """The seed and the name decide; another seed or another name gives other numbers."""
    model = tiny()
    one, same, other = (build_twin(model, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = "layers.0.attention.q.weight"
    assert not torch.equal(one[name], other[name])
    assert not torch.equal(one[name], one["layers.1.attention.q.weight"])
    assert one[name].std().item() == pytest.approx(32**-0.5, rel=0.1)
    assert one["layers.0.attention.out.weight"].std().item() == pytest.approx((8 * 32) ** -0.5, rel=0.1)


def test_dtype_and_device():
    """bf16 parameters are the rounded fp32 ones; a twin on the meta device has no values."""
    model = tiny()
    full, half = build_twin(model), build_twin(model, dtype=torch.bfloat16)
    name = "layers.0.ffn.up.weight"
    assert torch.equal(full.get_parameter(name).bfloat16(), half.get_parameter(name))
    assert build_twin(model, device="meta").get_parameter(name).is_meta


def test_no_stage_starts_with_shared_keys():
    """A cut before a layer that takes the keys of the layer before it is refused, with the layer's number."""
    with pytest.raises(InputError, match="no cut before layer 1"):
        build_twin(tiny(reaches=("full", "shared_kv")), layers=range(1, 4))


def test_training_lowers_the_loss():
    """A few steps on one batch bring the loss well below that of a uniform guess."""
    torch.manual_seed(0)
    twin = build_twin(tiny(**MIXTURE, tied=True))
    tokens = torch.randint(0, 61, (2, 17))
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2)
    for _ in range(15):
        logits = twin(tokens[:, :-1])
        found = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
    assert found.item() < 1.0
