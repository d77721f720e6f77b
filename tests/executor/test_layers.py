import pytest

torch = pytest.importorskip("torch")

from executor.layers.base import Spec  # noqa: E402
from executor.layers.core import SoftmaxCore  # noqa: E402
from executor.layers.linear_attention import LinearCore  # noqa: E402
from executor.layers.moe import Mixture, dispatch  # noqa: E402
from executor.layers.norm import WideNorm  # noqa: E402
from executor.layers.rotary import angles, rotate  # noqa: E402
from executor.layers.router import Router, Routing, routing_of  # noqa: E402
from planner import catalog  # noqa: E402
from planner.layers.base import Core  # noqa: E402
from planner.layers.moe import Mixture as Sizes  # noqa: E402
from planner.layers.moe import moe  # noqa: E402


def filled(module):
    """The module with small random values in every parameter, zeros in every buffer."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    for buffer in module.buffers():
        buffer.zero_()
    return module


def tensors(heads=4, groups=2, seq_len=24, qk_dim=6, v_dim=6):
    """q, k and v of two sequences."""
    torch.manual_seed(1)
    return (
        torch.randn(2, seq_len, heads, qk_dim),
        torch.randn(2, seq_len, groups, qk_dim),
        torch.randn(2, seq_len, groups, v_dim),
    )


def plain(q, k, v, seen, sinks=None):
    """Attention written out: `seen(i, j)` says whether token i sees token j."""
    groups = q.size(2) // k.size(2)
    k, v = (t.repeat_interleave(groups, 2) for t in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / q.size(-1) ** 0.5
    mask = torch.tensor([[seen(i, j) for j in range(k.size(1))] for i in range(q.size(1))])
    scores = scores.masked_fill(~mask, -torch.inf)
    total = scores.exp().sum(-1, keepdim=True)
    total = total if sinks is None else total + sinks.exp()[:, None, None]
    return torch.einsum("bhij,bjhd->bihd", scores.exp() / total, v)


@pytest.mark.parametrize("window", [None, 8, 5, 24, 100])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("sinks", [False, True])
def test_core_reaches_what_it_should(window, chunked, sinks):
    """Full, sliding and chunked reach, dividing the sequence or not, with sinks or not, against the definition."""
    core = filled(
        SoftmaxCore(Core("core", 4, 2, 6, 6, window=window, chunked=chunked and window is not None), sinks=sinks)
    )
    q, k, v = tensors()

    def seen(i, j):
        if window is None or j > i:
            return j <= i
        return i // window == j // window if chunked else i - j < window

    expected = plain(q, k, v, seen, core.sinks)
    positions = torch.arange(24)
    torch.testing.assert_close(core(q, k, v, positions), expected)
    torch.testing.assert_close(core(q, k, v, positions, positions), expected)
    some = torch.tensor([3, 20, 11])
    torch.testing.assert_close(core(q[:, some], k, v, some, positions), expected[:, some])


def test_core_of_latent_attention():
    """Scores over one width, values of another."""
    core = SoftmaxCore(Core("core", 4, 4, 6, 3))
    q, k, v = tensors(groups=4, v_dim=3)
    torch.testing.assert_close(core(q, k, v, torch.arange(24)), plain(q, k, v, lambda i, j: j <= i))


@pytest.mark.parametrize("seq_len", [40, 64, 150])
def test_linear_core_is_the_recurrence(seq_len):
    """Chunks, and the form with keys of other positions, against the recurrence token by token."""
    core = LinearCore(Core("core", 4, 4, 6, 5, linear=True))
    q, k, v = tensors(groups=4, seq_len=seq_len, v_dim=5)
    decay = torch.exp(-torch.exp2(-8.0 * (torch.arange(4) + 1.0) / 4))[:, None, None]
    state, rows = torch.zeros(2, 4, 6, 5), []
    for t in range(seq_len):
        state = decay * state + torch.einsum("bhd,bhe->bhde", k[:, t], v[:, t])
        rows.append(torch.einsum("bhd,bhde->bhe", q[:, t], state))
    expected = torch.stack(rows, 1)
    positions = torch.arange(seq_len)
    torch.testing.assert_close(core(q, k, v, positions), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(core(q, k, v, positions, positions), expected, rtol=1e-4, atol=1e-4)


def test_linear_core_of_some_heads():
    """A rank that holds the second half of the heads uses their decays."""
    part = Core("core", 4, 4, 6, 5, linear=True)
    whole, half = LinearCore(part), LinearCore(part)
    half.first = 2
    q, k, v = tensors(groups=4, v_dim=5)
    positions = torch.arange(24)
    upper = half(q[:, :, 2:], k[:, :, 2:], v[:, :, 2:], positions)
    torch.testing.assert_close(upper, whole(q, k, v, positions)[:, :, 2:])


def test_rotation_keeps_lengths_and_relative_places():
    """Rotated vectors keep their norm, and their products depend on the distance alone."""
    x = torch.randn(1, 1, 1, 9)
    places = (torch.tensor([3, 7]), torch.tensor([103, 107]))
    a, b = (rotate(x.expand(1, 2, 1, 9), angles(each, 9, torch.float32)) for each in places)
    torch.testing.assert_close(a.norm(dim=-1), x.norm(dim=-1).expand(1, 2, 1))
    torch.testing.assert_close((a[0, 0, 0] @ a[0, 1, 0]), (b[0, 0, 0] @ b[0, 1, 0]), rtol=1e-4, atol=1e-4)
    assert torch.equal(a[..., 8], x.expand(1, 2, 1, 9)[..., 8])


@pytest.mark.parametrize("vectors", [1, 2])
def test_wide_norm_of_a_slice(vectors):
    """Two ranks that hold half of the width each, with their sums added, norm as one."""
    whole = filled(WideNorm(12, vectors))
    x = torch.randn(3, 12)
    reference = torch.nn.functional.rms_norm(x, (12,), whole.weight, 1e-5)
    if vectors == 2:
        reference = torch.nn.functional.layer_norm(x, (12,), whole.weight, whole.bias, 1e-5)
    torch.testing.assert_close(whole(x), reference)
    sums = [x[:, 6:].sum(-1, keepdim=True)] if vectors == 2 else []
    centred = x - x.mean(-1, keepdim=True) if vectors == 2 else x
    sums.append(centred[:, 6:].square().sum(-1, keepdim=True))
    half = WideNorm(6, vectors)
    half.weight.data = whole.weight.data[:6]
    if vectors == 2:
        half.bias.data = whole.bias.data[:6]
    half.ways, half.reduce = 2, lambda mine: mine + sums.pop(0)
    torch.testing.assert_close(half(x[:, :6]), reference[:, :6])


def mixture(routing=Routing(), **fields):  # noqa: B008 (frozen)
    """A small mixture."""
    sizes = {"hidden": 8, "experts": 6, "topk": 2, "width": 10}
    return filled(Mixture(Spec(moe(Sizes(**{**sizes, **fields}))), routing))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_mixture_is_the_weighted_sum_of_its_experts(gated, bias):
    """Sorting tokens by expert gives what each token gets from its experts one by one, shared experts added."""
    block = mixture(gated=gated, expert_bias=bias, shared_width=4, shared_gate=True)
    x = torch.randn(2, 5, 8)
    ids, weights = block.router(x.flatten(0, 1))
    e = block.experts
    rows = []
    for token, chosen, shares in zip(x.flatten(0, 1), ids, weights, strict=True):
        out = torch.zeros(8)
        for i, share in zip(chosen.tolist(), shares, strict=True):
            up = token @ e.up[i] + (e.up_bias[i] if bias else 0.0)
            gate = token @ e.gate[i] + (e.gate_bias[i] if bias else 0.0) if gated else None
            inner = torch.nn.functional.gelu(up) if gate is None else torch.nn.functional.silu(gate) * up
            out = out + share * (inner @ e.down[i] + (e.down_bias[i] if bias else 0.0))
        rows.append(out)
    shared = block.shared(x) * block.shared_gate(x).sigmoid()
    torch.testing.assert_close(block(x), torch.stack(rows).view_as(x) + shared)


def test_experts_without_tokens():
    """An expert that no token visits gets a gradient of zero, not none and not garbage."""
    block = mixture()
    x = torch.randn(3, 8)
    ids = torch.tensor([[0, 5], [0, 5], [5, 0]])
    dispatch(x, ids, torch.full((3, 2), 0.5), block.experts).sum().backward()
    assert torch.equal(block.experts.up.grad[1:5], torch.zeros(4, 8, 10))
    assert block.experts.up.grad[0].abs().sum() > 0


def router(routing, **fields):
    """A small router."""
    sizes = {"hidden": 8, "experts": 8, "topk": 2, "width": 4}
    return filled(Router(Spec(moe(Sizes(**{**sizes, **fields}))), routing))


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_router_takes_the_best_scores(score):
    """Top-k of the scores, weights that sum to the scale."""
    found = router(Routing(score, scale=2.5))
    x = torch.randn(7, 8)
    ids, weights = found(x)
    logits = found.gate(x)
    scores = logits.softmax(-1) if score == "softmax" else logits.sigmoid()
    assert torch.equal(ids, scores.topk(2).indices)
    torch.testing.assert_close(weights, 2.5 * scores.topk(2).values / scores.topk(2).values.sum(-1, keepdim=True))
    single = router(Routing(score), topk=1)
    torch.testing.assert_close(
        single(x)[1],
        (single.gate(x).softmax(-1) if score == "softmax" else single.gate(x).sigmoid()).amax(-1, keepdim=True),
    )


def test_router_stays_in_its_groups():
    """A token uses experts of `group_topk` groups alone, those with the highest two best scores together."""
    found = router(Routing("sigmoid", groups=4, group_topk=1))
    x = torch.randn(50, 8)
    ids, _ = found(x)
    assert torch.equal(ids[:, 0] // 2, ids[:, 1] // 2)
    assert torch.equal(ids[:, 0] // 2, found.gate(x).sigmoid().view(50, 4, 2).sum(-1).argmax(-1))


def test_correction_balances_the_load():
    """Steps of the correction spread tokens that at first all go to the same experts; weights ignore it."""
    found = router(Routing("sigmoid", balance=0.02))
    found.gate.weight.data[:2] += 1.0
    x = torch.randn(200, 8).abs()
    found(x)
    first = found.load.max().item()
    for _ in range(60):
        found.update()
        found(x)
    assert found.load.sum() == 400
    assert found.load.max().item() < 0.5 * first
    ids, weights = found(x)
    scores = found.gate(x).sigmoid().gather(-1, ids)
    torch.testing.assert_close(weights, scores / scores.sum(-1, keepdim=True))


def test_counting_can_be_told_to_stop():
    """A repeated forward pass, and one of evaluation, leave the load alone."""
    found = router(Routing())
    found.counting = lambda: False
    found(torch.randn(5, 8))
    found.counting = lambda: True
    found.eval()(torch.randn(5, 8))
    assert found.load.sum() == 0


def test_capacity_drops_late_tokens():
    """With a capacity of the mean an expert takes its first tokens; a dropped choice gives nothing."""
    block = mixture(Routing(capacity=1.0))
    x = torch.randn(12, 8)
    ids, weights = block.router(x)
    free, _ = mixture().router(x)
    for expert in range(6):
        chosen = (free == expert).flatten().nonzero().flatten()
        kept = (ids == expert).flatten().nonzero().flatten()
        assert torch.equal(kept, chosen[:4])
    assert (ids == -1).any()
    torch.testing.assert_close(
        block(x.unsqueeze(0))[0], dispatch(x, ids.clamp(min=0), weights * (ids >= 0), block.experts)
    )


def test_load_balancing_loss_has_its_gradient():
    """The attached gradient equals that of aux · E · Σ share · Σ probability, times the scale, on top of the rest."""
    x = torch.randn(9, 8)
    with_loss, without = router(Routing(aux=0.1)), router(Routing())
    with_loss.aux_scale = 0.25
    for each in (with_loss, without):
        each(x)[1].square().sum().backward()
    added = with_loss.gate.weight.grad - without.gate.weight.grad
    weight = without.gate.weight.detach().requires_grad_()
    probability = (x @ weight.T).softmax(-1)
    share = torch.nn.functional.one_hot(probability.topk(2).indices, 8).sum((0, 1)) / 18
    (0.25 * 0.1 * 8 * (share * probability.sum(0)).sum()).backward()
    torch.testing.assert_close(added, weight.grad, rtol=1e-3, atol=1e-6)


def test_published_routing():
    """DeepSeek-V3 chooses 4 of 8 groups by sigmoid scores; every catalogue model's groups fit its experts."""
    assert routing_of(catalog.load("deepseek-v3")) == Routing("sigmoid", 8, 4, balance=1e-3, scale=2.5)
    assert routing_of(catalog.load("mixtral-8x7b")) == Routing()
    for model in map(catalog.load, catalog.names()):
        found = routing_of(model)
        assert max(model.experts, 1) % found.groups == 0
        assert model.experts // found.groups * found.group_topk >= model.topk
