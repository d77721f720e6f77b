import gc

import pytest

torch = pytest.importorskip("torch")

from executor.layers import flash  # noqa: E402
from executor.layers.base import Spec  # noqa: E402
from executor.layers.block import Block  # noqa: E402
from executor.layers.fused import activate, fused, rms_norm  # noqa: E402
from executor.layers.rebuild import apply_selective, rebuilt, selective  # noqa: E402
from executor.layers.router import Routing  # noqa: E402
from planner.shape import Shape, build  # noqa: E402


def leaves(*shapes):
    """Random fp32 tensors that want gradients."""
    torch.manual_seed(2)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def same_gradients(ours, theirs, inputs):
    """Both functions of `inputs` give the same value and the same gradients."""
    torch.testing.assert_close(ours(*inputs), theirs(*inputs))
    weight = torch.randn_like(ours(*inputs))
    found, expected = (torch.autograd.grad((f(*inputs) * weight).sum(), inputs) for f in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def kept(function, *inputs):
    """Bytes that autograd keeps of tensors other than `inputs`, each storage once."""
    known = {tensor.untyped_storage()._cdata for tensor in inputs}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            found[storage._cdata] = (tensor, storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function(*inputs)
    return sum(size for _, size in found.values()) if out.requires_grad else 0


def test_rms_norm():
    """As torch's, and only one number a row is kept beside the inputs."""
    x, weight = leaves((3, 5, 8), (8,))
    same_gradients(
        lambda x, w: rms_norm(x, w, 1e-5), lambda x, w: torch.nn.functional.rms_norm(x, (8,), w, 1e-5), (x, weight)
    )
    assert kept(lambda x, w: rms_norm(x, w, 1e-5), x, weight) == 3 * 5 * 4
    low = rms_norm(x.bfloat16(), weight.bfloat16(), 1e-5)
    assert low.dtype == torch.bfloat16


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_activation(gated, weighted):
    """As written with torch's operators, and nothing is kept beside the inputs."""
    up, gate, weights = leaves((6, 8), (6, 8), (6,))
    inputs = [up, *([gate] if gated else []), *([weights] if weighted else [])]

    def ours(up, *rest):
        return activate(up, rest[0] if gated else None, rest[-1] if weighted else None)

    def theirs(up, *rest):
        y = torch.nn.functional.silu(rest[0]) * up if gated else torch.nn.functional.gelu(up)
        return y * rest[-1].unsqueeze(-1) if weighted else y

    same_gradients(ours, theirs, inputs)
    assert kept(ours, *inputs) == 0


def test_fused():
    """Any function becomes one that keeps its inputs alone."""
    inputs = leaves((4, 4), (4, 4))

    def function(a, b):
        return (a @ b).tanh().exp() @ a

    same_gradients(lambda a, b: fused(function, a, b), function, inputs)
    assert kept(lambda a, b: fused(function, a, b), *inputs) == 0
    assert kept(function, *inputs) > 0


REACHES = [(0, False), (8, False), (8, True), (5, False), (5, True), (24, False)]


def written_out(reach, sinks, positions=None):
    """Attention from its definition, with gradients by autograd."""
    at = torch.arange(24)

    def function(q, k, v, *more):
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), 1) for x in (k, v))
        scores = q @ k.mT * q.size(-1) ** -0.5
        mask = flash.Reach(*reach).mask(at if positions is None else positions, at)
        scores = scores.masked_fill(~mask, -torch.inf)
        if sinks:
            scores = torch.cat((scores, more[0][:, None, None].expand(*scores.shape[:-1], 1)), -1)
        return scores.softmax(-1)[..., :24] @ v

    return function


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("v_dim", [6, 3])
def test_attention_operator(reach, sinks, v_dim):
    """Every reach, with sinks or not, equal and unequal widths: value and gradients; q, k, v, out, lse are kept."""
    inputs = leaves((2, 4, 24, 6), (2, 2, 24, 6), (2, 2, 24, v_dim), *([(4,)] if sinks else []))
    at = torch.arange(24)

    def ours(q, k, v, *more):
        return flash.attention(q, k, v, more[0] if sinks else None, at, None, *reach)[0]

    same_gradients(ours, written_out(reach, sinks), inputs)
    assert kept(ours, *inputs, at) == 2 * 4 * 24 * (v_dim + 1) * 4


@pytest.mark.parametrize("reach", REACHES)
def test_attention_at_other_positions(reach):
    """Queries of some positions against the keys of all."""
    some = torch.tensor([3, 20, 11, 0])
    inputs = leaves((2, 4, 4, 6), (2, 2, 24, 6), (2, 2, 24, 6), (4,))

    def ours(q, k, v, sinks):
        return flash.attention(q, k, v, sinks, some, torch.arange(24), *reach)[0]

    same_gradients(ours, written_out(reach, sinks=True, positions=some), inputs)


@pytest.mark.parametrize("causal", [False, True])
def test_products_in_place_of_the_kernel(causal):
    """What runs where there is no CPU kernel gives the same output, log-sum-exp and gradients."""
    q, k, v, gradient = (x.detach() for x in leaves((2, 4, 8, 6), (2, 2, 8, 6), (2, 2, 8, 3), (2, 4, 8, 3)))
    mask = None if causal else torch.rand(8, 8) > 0.5
    if mask is not None:
        mask[:, 0] = True
    out, lse = flash.attend(q, k, v, mask)
    found = flash.differentiate(q, k, v, gradient, out, lse, mask)
    plain_out, plain_lse = flash.multiply(q, k, v, mask)
    torch.testing.assert_close((plain_out, plain_lse), (out, lse))
    torch.testing.assert_close(
        flash.differentiate_products(q, k, v, gradient, out, lse, mask), found, rtol=1e-4, atol=1e-5
    )


KINDS = [
    {},
    {"attention": "mla", "kv_heads": 0, "q_rank": 24, "kv_rank": 16, "nope_dim": 8, "rope_dim": 4, "v_dim": 6},
    {"attention": "mla", "kv_heads": 0, "kv_rank": 16, "nope_dim": 8, "rope_dim": 4, "v_dim": 6},
    {"experts": 4, "topk": 2, "moe_ffn": 24, "shared_experts": 1, "moe_gated": False},
    {"experts": 4, "topk": 2, "moe_ffn": 24, "shared_experts": 1, "qk_norm": "full", "norm_places": "sandwich"},
    {"reaches": ("linear",)},
]


def gradients(block):
    """Output and gradients of a block with fixed weights on fixed input."""
    torch.manual_seed(3)
    for parameter in block.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape)
    for buffer in block.buffers():
        buffer.zero_()
    x = torch.randn(2, 16, 32, requires_grad=True)
    out = block(x, torch.arange(16))
    out.square().sum().backward()
    return [out.detach(), x.grad, *(parameter.grad for parameter in block.parameters())]


@pytest.mark.parametrize("fields", KINDS)
def test_selective_recompute_changes_no_number(fields):
    """A layer whose cheap tensors are rebuilt has the same output and gradients, bit for bit."""
    sizes = {"layers": 1, "hidden": 32, "vocab": 64, "heads": 4, "kv_heads": 2, "ffn": 48}
    spec = Spec(build(Shape("tiny", "test", **{**sizes, **fields})).kinds[0].parts)
    plain, rebuilding = Block(spec, Routing()), Block(spec, Routing())
    apply_selective(rebuilding)
    for ours, theirs in zip(gradients(rebuilding), gradients(plain), strict=True):
        assert torch.equal(ours, theirs)


def test_rebuilt_tensors_are_not_kept_and_made_once():
    """Two users of one cheap tensor make it once more, between them, and let it go; a chain keeps its start alone."""
    x, weight, other = leaves((64, 64), (64, 64), (64, 64))
    calls = []

    def cheap(t):
        calls.append(1)
        return t.sin()

    alive = []
    with selective():
        second = rebuilt(cheap, rebuilt(cheap, x))
        alive.append(torch.multiprocessing.reductions.StorageWeakRef(second.untyped_storage()))
        out = second @ weight + second @ other
        del second
    gc.collect()
    assert alive[0].expired()
    assert len(calls) == 2
    out.sum().backward()
    assert len(calls) == 4
    found = (x.grad, weight.grad)
    x.grad = weight.grad = None
    second = x.sin().sin()
    (second @ weight + second @ other).sum().backward()
    torch.testing.assert_close(found, (x.grad, weight.grad))


def test_nothing_is_rebuilt_outside():
    """Without selective recompute the call is a plain one."""
    (x,) = leaves((4,))
    assert torch.equal(rebuilt(torch.exp, x), x.exp())
