"""Pruning: exact sparsity, the 2:4 pattern, schedules, and the same masks on every layout."""

from dataclasses import replace
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor.methods import prune, select  # noqa: E402
from executor.methods.recipe import Pruning  # noqa: E402
from executor.methods.settings import Prune, read  # noqa: E402
from executor.methods.targets import Whole, chosen, compressible, pieces, rows, unrows  # noqa: E402
from executor.model import build  # noqa: E402
from executor.trainer import Trainer  # noqa: E402
from planner.errors import InputError  # noqa: E402
from tests.executor import grid  # noqa: E402
from tests.executor.grid import WORKLOAD, Row, model  # noqa: E402


def targets(*shapes, seed=0):
    """Random weights of these shapes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Whole(f"layers.{i}.weight", nn.Parameter(torch.randn(shape, generator=generator)))
        for i, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize("k", [0, 1, 2, 17, 60])
def test_the_kth_magnitude_is_that_of_a_sort(k):
    """The radix selection finds what sorting all magnitudes finds."""
    found = targets((3, 4), (2, 3, 2, 2), (2, 4, 3))
    every = torch.cat([each.piece.abs().flatten() for each in found]).sort().values
    assert select.smallest(found, k) == (float(every[k - 1]) if k else -1.0)


@pytest.mark.parametrize("scope", ["global", "matrix"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_sparsity_is_exact(scope, sparsity):
    """round(share · weights) go, over all matrices or in each of them, and the smallest."""
    found = targets((16, 20), (5, 8, 3, 3), (4, 6, 10))
    masks = prune.magnitude(found, sparsity, scope)
    gone = [int((~masks[each.name]).sum()) for each in found]
    sizes = [each.piece.numel() for each in found]
    if scope == "matrix":
        assert gone == [round(sparsity * size) for size in sizes]
    else:
        assert sum(gone) == round(sparsity * sum(sizes))
        kept = min(float(each.piece.abs()[masks[each.name]].min()) for each in found)
        lost = [each.piece.abs()[~masks[each.name]] for each in found]
        assert all(float(each.max()) < kept for each in lost if len(each))


@pytest.mark.parametrize("shape", [(6, 8), (5, 12, 3, 3), (3, 8, 7)])
def test_two_of_four_stay_and_they_are_the_largest(shape):
    """Of every four along the inputs exactly two stay, none of them smaller than one that goes."""
    (target,) = targets(shape)
    mask = prune.structured([target])[target.name]
    four = rows(mask.float()).unflatten(1, (-1, 4))
    assert bool((four.sum(-1) == 2).all())
    size = rows(target.piece.abs()).unflatten(1, (-1, 4))
    kept = size.masked_fill(four == 0, torch.inf).amin(-1)
    assert bool((kept >= size.masked_fill(four == 1, 0.0).amax(-1)).all())


def test_equal_weights_still_leave_two_of_four():
    """Ties are broken by place: two stay, never more or fewer."""
    mask = prune.two_of_four(torch.ones(3, 8))
    assert mask.tolist() == [[True, True, False, False] * 2] * 3


def test_inputs_that_are_no_multiple_of_four_stay_dense():
    """A first kernel with one input channel is left alone by 2:4, and the pruner says what it counted."""
    found = targets((8, 1, 3, 3), (8, 8))
    pruner = prune.Pruner(found, Prune("2:4", start=0))
    pruner.after_step(0)
    assert pruner.sparsity() == prune.Sparsity(32, 64)
    assert bool((found[0].piece != 0).all())


def test_rows_and_back():
    """Every kind of weight is put back as it was."""
    for shape in ((3, 4), (2, 4, 3, 3), (5, 4, 6)):
        weight = torch.randn(shape)
        assert torch.equal(unrows(rows(weight), weight.shape), weight)


def test_the_schedule_is_the_cubic_one():
    """0 before the start, the final share at the stop, steep first; masks anew every so many steps."""
    how = Prune(sparsity=0.8, start=10, stop=50, every=10)
    shares = [how.at(step) for step in range(60)]
    assert shares[:10] == [0.0] * 10
    assert shares[50:] == [0.8] * 10
    assert shares[30] == pytest.approx(0.8 * (1 - 0.5**3))
    gains = [b - a for a, b in pairwise(shares[10:51])]
    assert gains == sorted(gains, reverse=True)
    assert [step for step in range(60) if how.due(step)] == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("how", [Prune("2:4", start=2), Prune(sparsity=0.75, start=1, stop=4, every=1)])
def test_masks_stay_while_the_rest_is_trained(how):
    """After steps of AdamW with weight decay the zeros are the masked weights, exactly as many as asked for."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 12), nn.ReLU(), nn.Linear(12, 4))
    pruner = prune.Pruner(chosen(pieces(net)), how)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.1)
    for step in range(1, 9):
        optimizer.zero_grad()
        net(torch.randn(5, 4, 8, 8)).square().mean().backward()
        optimizer.step()
        pruner.after_step(step)
    found = pruner.sparsity()
    assert found.zeros == round(how.sparsity * found.weights)
    if how.pattern == "2:4":
        for each in pruner.targets:
            assert bool(((rows(each.piece) != 0).unflatten(1, (-1, 4)).sum(-1) == 2).all())


def test_what_is_spared():
    """Embeddings, norms, heads, routers, biases and prediction modules are left alone, all else is not."""
    names = [name for name, value in build(model("latent")).named_parameters() if compressible(name, value.shape)]
    assert {name.split(".")[2] for name in names} == {"attention", "ffn"}
    assert not [name for name in names if "router" in name or "norm" in name or name.startswith(("mtp", "head"))]
    assert any(".experts." in name for name in names)


def masks(row, how, steps):
    """Masks of a trainer's pieces as whole tensors on rank 0, and the sparsity that all ranks count."""
    trainer = Trainer(model(row.shape), row.degrees, row.chosen, WORKLOAD, options=row.options)
    method = Pruning(how)
    method.begin(trainer)
    method.before_step(1)
    tokens = grid.random_tokens(trainer.model, WORKLOAD, 0)[list(trainer.rows)]
    for step in range(1, steps + 1):
        method.before_step(step)
        trainer.step(tokens)
        method.after_step(step)
    whole = {name: value != 0 for name, value in trainer.parameters().items() if compressible(name, value.shape)}
    return whole, method.finish()


LAYOUTS = [
    Row("", "dense", 2, {"tp": 2, "micro_batch": 4}),
    Row("", "dense", 2, {"micro_batch": 4}, {"zero": 3}),
    Row("", "dense", 2, {"pp": 2, "micro_batch": 2}),
    Row("", "moe", 2, {"ep": 2, "micro_batch": 4}, {"zero": 2}),
]


@pytest.mark.parametrize("row", LAYOUTS, ids=["tp", "fsdp", "pp", "ep"])
@pytest.mark.parametrize("how", [Prune("2:4", start=0), Prune(sparsity=0.7, start=0), Prune(scope="matrix", start=0)])
def test_masks_on_every_layout_are_those_of_one_process(pool, row, how):
    """The same weights go, and the same numbers are counted, wherever the pieces lie."""
    alone = Row("", row.shape, 1, {"micro_batch": 4}, {})
    expected, told = pool.run(masks, alone, how, 0, ranks=1)[0]
    parts = pool.run(masks, row, how, 0, ranks=2)
    found = {name: mask for part, _ in parts[:1] for name, mask in part.items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(facts == told for _, facts in parts)


def test_the_pattern_is_kept_through_steps_on_two_ranks(pool):
    """2:4 holds in every whole matrix after training steps under FSDP and tensor parallelism."""
    for row in LAYOUTS[:2]:
        whole, told = pool.run(masks, row, Prune("2:4", start=1), 3, ranks=2)[0]
        assert told["sparsity"] == 0.5
        for mask in whole.values():
            assert bool((rows(mask.float()).unflatten(1, (-1, 4)).sum(-1) == 2).all())


def torn(row):
    """What is said of a layout that tears groups of four."""
    trainer = Trainer(model(row.shape), row.degrees, row.chosen, WORKLOAD)
    for each in trainer.held:
        if each.name == "layers.0.ffn.down.weight":
            odd = replace(each, name=each.name)
            try:
                prune.structured([_Narrow(odd)])
            except InputError as error:
                return str(error)
    return ""


class _Narrow:
    """A held parameter that pretends to have as many inputs as can't be halved into fours."""

    def __init__(self, held):
        self.name, self.piece, self.counts = held.name, held.piece, held.counts
        mesh, placements = held.parameter.device_mesh, held.parameter.placements
        local = held.piece.detach()[:, :6]
        self.parameter = type(held.parameter.data).from_local(local, mesh, placements, run_check=False)


def test_a_cut_that_tears_fours_is_refused(pool):
    """The sentence names the matrix, its inputs and the parts."""
    found = pool.run(torn, LAYOUTS[0], ranks=2)[0]
    assert "layers.0.ffn.down.weight" in found
    assert "12 inputs are cut into 2 parts" in found


def test_a_wrong_table_is_refused_at_once():
    """All faults of a table in one error, each by its key."""
    with pytest.raises(InputError) as caught:
        read(Prune, {"pattern": "2to4", "sparsity": "half", "evry": 2}, "r.toml: compression.prune")
    text = str(caught.value)
    assert "did you mean 'every'" in text
    assert "did you mean '2:4'" in text
    assert "sparsity is 'half'" in text
    with pytest.raises(InputError) as caught:
        read(Prune, {"pattern": "2:4", "sparsity": 0.7, "start": 5, "stop": 9}, "p")
    assert len(caught.value.faults) == 2
