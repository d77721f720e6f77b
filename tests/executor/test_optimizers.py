import math

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor.optimizers.build import build, kind  # noqa: E402
from executor.optimizers.moments import BLOCK, Blocks8, codes  # noqa: E402
from executor.optimizers.muon import SAME_RMS, orthogonal  # noqa: E402
from executor.optimizers.rounding import Rounding, lowered  # noqa: E402
from executor.optimizers.settings import EXCLUSIONS, NAMES, Update  # noqa: E402


def pieces():
    """The parameters of a small model by name, each whole."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "embedding.tokens.weight": (12, 8),
        "layers.0.attention.q.weight": (8, 8),
        "layers.0.ffn.experts.up": (2, 8, 6),
        "layers.0.norms.ffn_norm.weight": (8,),
        "layers.0.attention.q.bias": (8,),
        "head.output.weight": (12, 8),
    }
    made = {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    return [(name, parameter, parameter) for name, parameter in made.items()]


def trained(name, update, steps=5):
    """The parameters after some steps on gradients that depend on nothing else."""
    held = pieces()
    optimizer = build(name, held, update)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for _, parameter, _ in held:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return {name: parameter.detach() for name, parameter, _ in held}, optimizer


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_minimises_a_parabola(name):
    """Each name of the table builds an optimizer that comes near the minimum of a quadratic."""
    rate = {"sgd": 0.05, "sgd-plain": 0.05, "adafactor": 0.3}.get(name, 0.02)
    held = pieces()
    optimizer = build(name, held, Update(learning_rate=rate, weight_decay=0.0))

    def loss():
        return sum(parameter.square().sum() for _, parameter, _ in held)

    first = loss().item()
    for _ in range(120):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.2 * first


@pytest.mark.parametrize(("name", "error"), [("adam-bf16", 1e-3), ("adam-8bit", 6e-3)])
def test_adam_with_small_moments_follows_adamw(name, error):
    """bf16 and 8-bit moments lead near the weights of AdamW, and never to the very same."""
    update = Update(learning_rate=0.01, weight_decay=0.1)
    exact, _ = trained("adamw", update)
    found, _ = trained(name, update)
    off = max((found[key] - exact[key]).abs().max().item() for key in exact)
    assert 0 < off < error


def test_moments_of_eight_bits_survive_a_checkpoint():
    """What is read from codes gives the same codes again, with padding behind the last block; the error is small."""
    store, value = Blocks8(), torch.randn(3 * BLOCK + 7, generator=torch.Generator().manual_seed(0))
    for signed, moment in ((True, value), (False, value.square() * 1e-6)):
        kept = store.pack(moment, signed=signed)
        read = store.unpack(kept, moment)
        again = store.pack(read, signed=signed)
        assert all(torch.equal(kept[key], again[key]) for key in kept)
        assert (read - moment).abs().max() <= 0.15 * moment.abs().max()
        assert kept[".codes"].numel() == len(value)
        assert kept[".codes"].element_size() == 1
        assert len(kept[".scales"]) == 4
    assert codes(signed=True).sort().values.equal(codes(signed=True))


def test_portable_state_is_adopted():
    """An 8-bit Adam that takes up another one's portable state goes on to the same weights."""
    held = pieces()
    update = Update(learning_rate=0.01)
    _, first = trained("adam-8bit", update)
    second = build("adam-8bit", held, update)
    for (_, _, piece), other in zip(held, first.state, strict=True):
        second.adopt(piece, {key: value.clone() for key, value in first.portable(other).items()})
        assert all(torch.equal(second.state[piece][key], first.state[other][key]) for key in first.state[other])


def test_newton_schulz_agrees_with_torch():
    """One Muon update is that of torch.optim.Muon, which computes in bf16, on wide and on tall matrices."""
    for shape in ((6, 10), (10, 6)):
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        gradient = weight.grad.clone()
        torch.optim.Muon([weight], lr=1.0, weight_decay=0.0, momentum=0.0, adjust_lr_fn="match_rms_adamw").step()
        found = orthogonal(gradient)
        assert torch.allclose(-weight.detach(), found, atol=0.05 * found.abs().max().item())
        singular = torch.linalg.svdvals(found) / (SAME_RMS * math.sqrt(10))
        assert 0.5 < singular.min() <= singular.max() < 1.5


def test_stacks_and_convolutions_are_matrices():
    """A stack of experts is orthogonalised matrix by matrix, a convolution as outputs by all that it reads."""
    stack = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(orthogonal(stack), torch.stack([orthogonal(each) for each in stack]), atol=1e-6)
    kernel = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(orthogonal(kernel).flatten(1), orthogonal(kernel.flatten(1)), atol=1e-6)


def test_lion_moves_by_signs():
    """Without decay every weight moves by the learning rate, whatever the size of its gradient."""
    start = {name: parameter.detach().clone() for name, parameter, _ in pieces()}
    found, _ = trained("lion", Update(learning_rate=0.25, weight_decay=0.0), steps=1)
    for name, value in found.items():
        assert torch.allclose((value - start[name]).abs(), torch.tensor(0.25))


def test_what_decays():
    """Norms, biases and embeddings can be left out of the decay; matrices and the head can't."""
    kinds = {name: kind(name, parameter) for name, parameter, _ in pieces()}
    assert [*kinds.values()] == ["embeddings", "matrices", "matrices", "norms", "biases", "matrices"]
    held = pieces()
    names = {id(piece): name for name, _, piece in held}
    groups = build("adamw", held, Update(weight_decay=0.1, exclude=EXCLUSIONS)).param_groups
    decayed = {names[id(each)]: group["weight_decay"] for group in groups for each in group["params"]}
    assert {name for name, decay in decayed.items() if decay} == {n for n, k in kinds.items() if k == "matrices"}
    muon = build("muon", held, Update()).param_groups
    orthogonalised = {names[id(each)] for group in muon if group["matrices"] for each in group["params"]}
    assert orthogonalised == {"layers.0.attention.q.weight", "layers.0.ffn.experts.up"}


def test_rounding_at_random_is_right_on_average():
    """A value between two bf16 numbers goes to one of both, up as often as it is near; the same seed rounds alike."""
    value = torch.full((20000,), 1.0 + 2**-7 * 0.25)
    bits = torch.randint(1 << 16, value.shape, generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    found = lowered(value, bits)
    assert set(found.unique().tolist()) == {1.0, 1.0 + 2**-7}
    assert (found > 1.0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    rounded = []
    for _ in range(2):
        weight = value.clone()
        Rounding(7, stochastic=True)([("w", weight, weight)])
        rounded.append(weight)
    assert torch.equal(*rounded)
    nearest = value.clone()
    Rounding(7, stochastic=False)([("w", nearest, nearest)])
    assert torch.equal(nearest, value.bfloat16().float())
