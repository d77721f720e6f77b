"""Quantization: error bounds, packing, bytes, products in integers, training for low precision on any layout."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from executor.methods import codecs, layers, quantize  # noqa: E402
from executor.methods.aware import Inputs, Rounded  # noqa: E402
from executor.methods.prune import structured  # noqa: E402
from executor.methods.recipe import Aware  # noqa: E402
from executor.methods.settings import Quantize, read  # noqa: E402
from executor.methods.targets import chosen, pieces, rows  # noqa: E402
from executor.trainer import Trainer  # noqa: E402
from planner.errors import InputError  # noqa: E402
from tests.executor import grid  # noqa: E402
from tests.executor.grid import WORKLOAD, Row, model  # noqa: E402

SHAPES = [(7, 24), (6, 4, 3, 3), (3, 20, 5)]


def weight(shape, seed=0):
    """A random weight."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 0), (4, 8), (8, 16)])
def test_no_weight_moves_more_than_half_a_scale(shape, bits, group):
    """Rounding to the nearest code is off by half a scale at most, and the largest of a row or group is exact."""
    found = quantize.quantize(weight(shape), bits, group)
    error = rows((found.weight() - weight(shape)).abs())
    inputs = error.size(1)
    scale = found.scale.repeat_interleave(group or inputs, 1)[:, :inputs]
    assert bool((error <= scale / 2 * (1 + 1e-5)).all())
    assert int(found.codes.abs().max()) == quantize.MOST[bits]


@pytest.mark.parametrize("inputs", [1, 2, 7, 8])
def test_two_codes_a_byte(inputs):
    """Packed int4 takes half a byte a code, rounded up a row, and comes back as it was."""
    codes = torch.randint(-7, 8, (5, inputs), dtype=torch.int8)
    packed = quantize.pack(codes)
    assert packed.dtype == torch.uint8
    assert packed.nbytes == 5 * -(-inputs // 2)
    assert torch.equal(quantize.unpack(packed, inputs), codes)


@pytest.mark.parametrize("form", codecs.FORMS)
@pytest.mark.parametrize("shape", [(8, 16), (6, 4, 3, 3), (2, 8, 5)])
def test_a_stored_weight_comes_back(form, shape):
    """Exact forms give the weight itself, codes what they stand for, and the bytes are those of the tensors."""
    value = weight(shape)
    if form == "2:4":
        value = value * structured([_target(value)])["layers.weight"]
    if form == "sparse":
        value = value * (value.abs() > 0.6)
    parts = codecs.encode(value, form)
    back = codecs.decode(parts, form, shape)
    bound = {"fp32": 0.0, "2:4": 0.0, "sparse": 0.0, "bf16": 2**-8, "fp8": 2**-4, "int8": 1 / 254, "int4": 1 / 14}[form]
    assert float((back - value).abs().max()) <= bound * float(value.abs().max()) + 1e-7
    assert codecs.stored_bytes(parts) == sum(each.numel() * each.element_size() for each in parts.values())
    again = codecs.decode(codecs.encode(back, form), form, shape)
    torch.testing.assert_close(again, back, rtol=1e-6, atol=1e-7)


def _target(value):
    return pieces(_Holder(value))[0]


class _Holder(nn.Module):
    """A module whose one weight is called layers.weight."""

    def __init__(self, value):
        super().__init__()
        self.layers = nn.Module()
        self.layers.weight = nn.Parameter(value)


def test_a_dense_weight_is_no_two_of_four():
    """Storing an unpruned weight as 2:4 would lose values, so it is refused."""
    with pytest.raises(InputError, match="more than two of four"):
        codecs.encode(torch.ones(2, 8), "2:4")


def net(seed=0):
    """A small net of a kernel with stride and padding, and matrices."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 12),
        nn.ReLU(),
        nn.Linear(12, 5),
    )


@pytest.mark.parametrize(("form", "bound"), [("int8", 0.02), ("int4", 0.3), ("int8-dynamic", 0.04)])
def test_products_in_codes_are_near_those_in_floats(form, bound):
    """Every matrix and kernel is replaced, and the output moves by a little of its size."""
    x, plain = torch.randn(6, 4, 8, 8), net()
    coded = net()
    assert layers.deploy(coded, form) == ["0.weight", "3.weight", "5.weight"]
    before, after = plain(x).detach(), coded(x).detach()
    assert float((after - before).norm() / before.norm()) < bound
    assert not torch.equal(after, before)


def test_an_integer_product_is_the_rounded_one():
    """int8-dynamic equals rounding weights and tokens to codes first and multiplying in floats."""
    x, plain = torch.randn(9, 32), nn.Linear(32, 16)
    coded = nn.Sequential(nn.Linear(32, 16))
    coded[0].load_state_dict(plain.state_dict())
    layers.deploy(coded, "int8-dynamic")
    scale = x.abs().amax(-1, keepdim=True) / 127
    wide = quantize.quantize(plain.weight, 8).weight()
    torch.testing.assert_close(coded(x), functional.linear((x / scale).round() * scale, wide, plain.bias))


def test_weights_are_rounded_for_the_pass_alone():
    """The gradient is that of the rounded weights; the weights themselves come back to the last bit."""
    torch.manual_seed(0)
    plain, x = net(), torch.randn(6, 4, 8, 8)
    exact = [each.detach().clone() for each in plain.parameters()]
    rounded = Rounded(chosen(pieces(plain)), Quantize("int4", group=16))
    rounded.lay_on()
    plain(x).square().sum().backward()
    rounded.give_back()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), exact, strict=True))
    twin = net()
    with torch.no_grad():
        for name in ("0", "3", "5"):
            part = twin.get_submodule(name)
            part.weight.copy_(quantize.quantize(part.weight, 4, 16).weight())
    twin(x).square().sum().backward()
    for a, b in zip(plain.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_training_for_int4_beats_rounding_afterwards():
    """With int4 weights a net that was trained for them has a lower loss than one that was rounded at the end."""
    losses = {}
    for aware in (False, True):
        torch.manual_seed(1)
        student, data = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 8)), torch.randn(256, 16)
        wanted = torch.tanh(data @ torch.randn(16, 8))
        rounded = Rounded(chosen(pieces(student)), Quantize("int4", group=16))
        optimizer = torch.optim.Adam(student.parameters(), 1e-2)
        for step in range(400):
            optimizer.param_groups[0]["lr"] = 1e-2 * (1.0 - step / 400)
            if aware:
                rounded.lay_on()
            optimizer.zero_grad()
            functional.mse_loss(student(data), wanted).backward()
            rounded.give_back()
            optimizer.step()
        layers.deploy(student, "int4", 16)
        losses[aware] = float(functional.mse_loss(student(data), wanted).detach())
    assert losses[True] < 0.8 * losses[False]


def test_fp8_products_take_e4m3_operands_and_e5m2_gradients():
    """Forward, input gradient and weight gradient equal products of the cast operands."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(16, 8, bias=False))
    x, gradient = torch.randn(4, 16, requires_grad=True), torch.randn(4, 8)
    how = Quantize("fp8")
    hooks, rounded = Inputs(how), Rounded(chosen(pieces(layer)), how)
    assert hooks.install(layer) == 1
    own = layer[0].weight.detach().clone()
    rounded.lay_on()
    hooks.active = True
    y = layer(x)
    y.backward(gradient)
    rounded.give_back()
    w8, x8 = quantize.cast_fp8(own, "e4m3"), quantize.cast_fp8(x.detach(), "e4m3")
    g8 = quantize.cast_fp8(gradient, "e5m2")
    torch.testing.assert_close(y.detach(), x8 @ w8.t())
    torch.testing.assert_close(x.grad, g8 @ w8)
    torch.testing.assert_close(layer[0].weight.grad, g8.t() @ x8)
    assert not torch.equal(w8, own)


@pytest.mark.parametrize(("form", "steps"), [("e4m3", 3), ("e5m2", 2)])
def test_fp8_keeps_as_many_bits_as_it_has(form, steps):
    """Normal numbers are off by half a unit in the last place at most, the largest is exact."""
    x = torch.randn(4096).abs() + 0.1
    back = quantize.cast_fp8(x, form)
    assert float(((back - x) / x).abs().max()) <= 2.0 ** -(steps + 1) * (1 + 1e-6)
    assert float(back.max()) == pytest.approx(float(x.max()), rel=1e-6)


def trained(row, how):
    """Whole weights after some aware steps, on rank 0, and the losses."""
    method = Aware(how)
    trainer = Trainer(model(row.shape), row.degrees, row.chosen, WORKLOAD, options=row.options)
    for each in trainer.modules:
        method.prepare(each)  # in a recipe before the axes cut it; the hooks sit on the same products
    method.begin(trainer)
    tokens = grid.random_tokens(trainer.model, WORKLOAD, 0)[list(trainer.rows)]
    losses = []
    for step in range(1, 4):
        method.before_step(step)
        losses.append(trainer.step(tokens))
        method.after_step(step)
    return trainer.parameters(), losses, method.finish()


ROWS = {
    "tp": Row("", "dense", 2, {"tp": 2, "micro_batch": 4}),
    "fsdp": Row("", "dense", 2, {"micro_batch": 4}, {"zero": 3}),
    "pp": Row("", "dense", 2, {"pp": 2, "micro_batch": 4}),
}


@pytest.mark.parametrize(
    "how", [Quantize("int8"), Quantize("int8", activations=True), Quantize("int4", group=16)], ids=str
)
@pytest.mark.parametrize("layout", ROWS)
def test_training_for_low_precision_is_the_same_on_every_layout(pool, layout, how):
    """Losses agree with one process to the rounding of a sum, and differ from training without rounding."""
    alone = Row("", "dense", 1, {"micro_batch": 4})
    expected, losses, told = pool.run(trained, alone, how, ranks=1)[0]
    found, parallel, facts = pool.run(trained, ROWS[layout], how, ranks=2)[0]
    assert parallel == pytest.approx(losses, rel=2e-4)
    assert facts["matrices"] in (told["matrices"], told["matrices"] // 2)
    assert found.keys() == expected.keys()


def test_a_wrong_table_is_refused():
    """Form and group are checked, with the nearest name."""
    with pytest.raises(InputError) as caught:
        read(Quantize, {"form": "int3", "group": 5}, "q")
    assert "expected one of int8, int4, fp8" in str(caught.value)
    with pytest.raises(InputError, match="even number"):
        read(Quantize, {"form": "int4", "group": 5}, "q")
