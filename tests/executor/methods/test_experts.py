"""Experts dropped and merged: the new model's forward pass works, and equal experts merge without a change."""

import pytest

torch = pytest.importorskip("torch")

from executor.layers.router import routing_of  # noqa: E402
from executor.methods import experts  # noqa: E402
from executor.model import build  # noqa: E402
from planner.compression import get  # noqa: E402
from planner.errors import InputError  # noqa: E402
from planner.shape import Shape  # noqa: E402
from planner.shape import build as shape_model  # noqa: E402
from tests.executor.grid import model  # noqa: E402


def sample(count=3):
    """Batches of token ids."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 64, (4, 32), generator=generator) for _ in range(count)]


def moe(topk=2, count=8, name="moe"):
    """A mixture model and its parameters."""
    sizes = {"family": "test", "layers": 3, "hidden": 32, "vocab": 64, "heads": 4, "ffn": 64, "first_dense": 1}
    made = shape_model(Shape(name, **sizes, experts=count, topk=topk, moe_ffn=32, shared_experts=1))
    return made, dict(build(made, seed=1).state_dict())


def test_loads_and_company_are_counted():
    """Every token counts once for each of its experts, and once for each pair of them."""
    made, _ = moe()
    found = experts.routed(build(made, seed=1), sample())
    assert sorted(found) == ["layers.1.ffn", "layers.2.ffn"]
    tokens = 3 * 4 * 32
    for each in found.values():
        assert float(each.load.sum()) == 2 * tokens
        assert torch.equal(each.together.diagonal(), each.load)
        assert float(each.together.sum()) == 4 * tokens
        assert torch.equal(each.together, each.together.t())


def test_a_dropped_expert_is_one_that_nobody_chose():
    """Without the experts that no token visits, renormalised routing gives exactly what it gave."""
    made, state = moe(topk=2)
    for layer in (1, 2):
        gate = state[f"layers.{layer}.ffn.router.gate.weight"]
        gate[1], gate[3] = -gate[0], -gate[2]  # one logit of each pair is positive
        gate[5:] = 0.0  # so these are never among the best two
    module = experts.built(made, state)
    loads = experts.routed(module, sample())
    keep = max(int((each.load > 0).sum()) for each in loads.values())
    smaller, kept = experts.drop(made, state, loads, keep)
    assert smaller == get(f"experts:{keep}").changed(made)
    assert kept["layers.1.ffn.experts.up"].shape[0] == kept["layers.1.ffn.router.gate.weight"].shape[0] == keep < 8
    after = experts.built(smaller, kept)
    with torch.no_grad():
        for batch in sample():
            torch.testing.assert_close(after(batch), module(batch), rtol=1e-4, atol=1e-5)


def test_the_most_used_stay():
    """The experts that are dropped are those of the smallest loads, the others keep their order."""
    made, state = moe()
    loads = experts.routed(experts.built(made, state), sample())
    smaller, kept = experts.drop(made, state, loads, 5)
    load = loads["layers.2.ffn"].load
    stay = sorted(load.argsort(descending=True, stable=True)[:5].tolist())
    assert torch.equal(kept["layers.2.ffn.experts.down"], state["layers.2.ffn.experts.down"][stay])
    assert smaller.total_parameters() == sum(each.numel() for each in kept.values())
    assert experts.built(smaller, kept)(sample()[0]).shape == (4, 32, 64)


@pytest.mark.parametrize("together", [0.0, 0.5])
def test_equal_experts_merge_without_a_change(together):
    """Four pairs of duplicates become four experts behind the same router; the output is the same to the last bit."""
    made, state = moe()
    for name, value in state.items():
        if ".experts." in name:
            value[4:] = value[:4]
    before = experts.built(made, state)
    loads = experts.routed(before, sample())
    smaller, merged, maps = experts.merge(made, state, loads, 4, together if together < 0.1 else 0.01)
    assert merged["layers.1.ffn.experts.up"].shape[0] == 4
    assert maps["layers.1.ffn"].tolist() == [0, 1, 2, 3] * 2
    after = experts.built(made, merged, maps)
    assert sum(each.numel() for each in after.parameters()) == smaller.total_parameters()
    with torch.no_grad():
        for batch in sample():
            torch.testing.assert_close(after(batch), before(batch), rtol=1e-5, atol=1e-6)


def test_channels_are_matched_before_a_mean():
    """Experts that differ in the order of their channels alone become equal, and compute what they did before."""
    made, state = moe()
    order = torch.randperm(32, generator=torch.Generator().manual_seed(2))
    for name, value in state.items():
        if ".experts." in name:
            value[4:] = value[:4].index_select(1 if name.endswith("down") else 2, order)
    before = experts.built(made, state)
    loads = experts.routed(before, sample())
    maps = dict.fromkeys(loads, torch.arange(4).repeat(2))
    matched = experts.aligned(state, maps, loads)
    for name, value in matched.items():
        if ".experts." in name:
            assert torch.equal(value[4:], value[:4]), name
    after = experts.built(made, matched)
    with torch.no_grad():
        for batch in sample():
            torch.testing.assert_close(after(batch), before(batch), rtol=1e-4, atol=1e-5)


def test_a_merged_expert_is_the_mean_by_load():
    """Two of three experts become their mean, weighted by the tokens that they had (and one each)."""
    made, state = moe(topk=1, count=3)
    loads = experts.routed(experts.built(made, state), sample())
    name = "layers.1.ffn"
    _, merged, maps = experts.merge(made, state, loads, 2)
    state = experts.aligned(state, maps, loads)
    target, load = maps[name], loads[name].load + 1.0
    pair = int(target.bincount().argmax())
    share = load[target == pair] / load[target == pair].sum()
    value = state[f"{name}.experts.up"][target == pair]
    torch.testing.assert_close(merged[f"{name}.experts.up"][pair], (share[:, None, None] * value).sum(0))
    assert torch.equal(merged[f"{name}.router.gate.weight"], state[f"{name}.router.gate.weight"])


def test_clusters_join_the_most_alike():
    """Two tight groups are found whatever the order."""
    points = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0], [1.0, 0.2]]))
    assert experts.clusters(points @ points.t(), 2).tolist() == [0, 1, 0, 1, 0]


def test_what_can_not_be_dropped_is_refused():
    """Fewer experts than a token visits, prediction modules, groups that would be torn."""
    made, state = moe()
    loads = experts.routed(experts.built(made, state), sample())
    for keep in (1, 9):
        with pytest.raises(InputError, match="a token visits as many"):
            experts.drop(made, state, loads, keep)
    with pytest.raises(InputError, match="prediction modules"):
        experts.drop(model("latent"), {}, {}, 4)
    grouped, state = moe(name="deepseek-v3-small", topk=2, count=16)
    assert routing_of(grouped).groups == 8
    with pytest.raises(InputError, match="groups of experts"):
        experts.drop(grouped, state, {}, 12)
