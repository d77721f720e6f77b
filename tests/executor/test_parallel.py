import os
import signal
from collections import Counter
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402

from executor.layers.router import Router  # noqa: E402
from executor.mesh import build_meshes  # noqa: E402
from executor.parallel import Options  # noqa: E402
from executor.parallel.context import order  # noqa: E402
from executor.parallel.deferred import Deferred  # noqa: E402
from executor.parallel.expert import Slots, owned, slots_by_layer, traffic  # noqa: E402
from executor.ranks import RankFailed, Ranks  # noqa: E402
from executor.refusal import refuse  # noqa: E402
from executor.spans import Recorder, recording, span  # noqa: E402
from executor.trainer import Trainer  # noqa: E402
from planner.cost.groups import groups  # noqa: E402
from planner.errors import InputError  # noqa: E402
from planner.strategy import ORDERS, Choices, Degrees  # noqa: E402
from tests.executor import grid  # noqa: E402
from tests.executor.grid import REPLICATED, WORKLOAD, Row, model  # noqa: E402

FOLDED = Degrees(8, tp=2, cp=2, pp=2, ep=2, etp=2)


def made(row):
    """A trainer of a row and its first batch."""
    trainer = Trainer(model(row.shape), row.degrees, row.chosen, WORKLOAD, options=row.options)
    return trainer, grid.random_tokens(trainer.model, WORKLOAD, 0)[list(trainer.rows)]


def members(degrees, choice):
    """Ranks of each group of this rank, by axis."""
    meshes = build_meshes(degrees, order=choice)
    return {axis: dist.get_process_group_ranks(meshes.group(axis)) for axis in ("tp", "cp", "dp", "pp", "ep", "etp")}


@pytest.mark.parametrize(
    ("degrees", "choice"),
    [(FOLDED, ORDERS[0]), (Degrees(8, tp=2, pp=2, ep=2), ORDERS[1]), (Degrees(8, cp=2, ep=4), ORDERS[0])],
)
def test_groups_are_those_of_the_planner(pool, degrees, choice):
    """Each axis has the size and the stride that the planner prices."""
    planned = groups(degrees, Choices(order=choice))
    for rank, found in enumerate(pool.run(members, degrees, choice)):
        for axis in ("tp", "cp", "pp", "ep", "etp"):
            group = getattr(planned, axis)
            assert len(found[axis]) == group.size
            assert rank in found[axis]
            assert {b - a for a, b in zip(found[axis], found[axis][1:], strict=False)} <= {group.stride}
        assert len(found["dp"]) == degrees.dp


@pytest.mark.parametrize("kind", ["ring", "all_gather", "ulysses"])
def test_orders_cover_the_sequence_and_balance_it(kind):
    """Every token is on one rank; in zigzag order each rank has the same causal work."""
    parts = [order(32, 4, rank, kind) for rank in range(4)]
    assert torch.cat(parts).sort().values.tolist() == list(range(32))
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)
    work = {int(part.sum()) for part in parts}
    assert len(work) == (4 if kind == "ulysses" else 1)


def collectives(row):
    """Collectives of one step of this rank: (kind, phase) with their number and bytes."""
    trainer, tokens = made(row)
    with recording(Recorder()) as recorder:
        trainer.step(tokens)
    calls, size = Counter(), Counter()
    for each in recorder.spans:
        if each.phase:
            calls[each.kind, each.phase] += 1
            size[each.kind, each.phase] += each.bytes
    return dict(calls), dict(size)


def test_tensor_parallel_calls(pool):
    """Two gathers and two scatters a layer and direction, one of each for embedding and head, all of whole tokens."""
    calls, size = pool.run(collectives, Row("", "dense", 2, {"tp": 2, "micro_batch": 8}), ranks=2)[0]
    once = 2 * 4 + 1
    assert calls["all_gather", "tensor"] == calls["reduce_scatter", "tensor"] == 2 * once
    assert size["all_gather", "tensor"] == size["reduce_scatter", "tensor"] == 2 * once * 8 * 32 * 32 * 4


@pytest.mark.parametrize(
    ("zero", "gathers", "scatters", "reduces"), [(0, 0, 0, 5), (1, 5, 5, 0), (2, 5, 20, 0), (3, 40, 20, 0)]
)
def test_data_parallel_calls(pool, zero, gathers, scatters, reduces):
    """What each ZeRO sends for 4 layers and the rest (5 calls each time), over 4 micro-batches forward and backward."""
    row = Row("", "dense", 2, {"micro_batch": 1}, {"zero": zero})
    calls, _ = pool.run(collectives, row, ranks=2)[0]
    assert calls.get(("all_gather", "data"), 0) == gathers
    assert calls.get(("reduce_scatter", "data"), 0) == scatters
    assert calls.get(("all_reduce", "data"), 0) == reduces + 1  # and the loss


def test_context_and_expert_calls(pool):
    """A ring of two passes keys and values once forward, and with their gradients backward; experts go and return."""
    calls, size = pool.run(collectives, Row("", "dense", 2, {"cp": 2, "micro_batch": 8}), ranks=2)[0]
    assert calls["send_receive", "context"] == 4 * (1 + 3)
    assert size["send_receive", "context"] == 4 * 4 * (8 * 16 * 2 * 8 * 2) * 4
    calls, _ = pool.run(collectives, Row("", "moe", 2, {"ep": 2, "micro_batch": 4}), ranks=2)[0]
    assert calls["all_to_all", "expert"] == 3 * (1 + 2 + 2)  # counts, there and back, and their gradients


def routed(row, steps):
    """Traffic of the experts, loads after a step and the losses of some steps."""
    trainer, tokens = made(row)
    trainer.forward_backward(tokens)
    loads = [each.load.tolist() for module in trainer.modules for each in module.modules() if isinstance(each, Router)]
    moved = traffic(trainer.modules[0])
    trainer.drop_gradients()
    return moved, loads, [trainer.step(tokens) for _ in range(steps)], traffic(trainer.modules[0])


def test_placement_moves_the_load_and_not_the_loss(pool):
    """Slots serve the share that they should, on their ranks; the losses stay within 1e-6."""
    plain = Row("", "moe", 2, {"ep": 2, "micro_batch": 4}, {"recompute": "full"})
    placed = replace(plain, options=Options(placement={1: REPLICATED, 2: REPLICATED, 3: REPLICATED}))
    before, after = (pool.run(routed, row, 3, ranks=2) for row in (plain, placed))
    assert after[0][2] == pytest.approx(before[0][2], rel=1e-6)
    load = torch.tensor(before[0][1]) + torch.tensor(before[1][1])  # [layers with experts, experts]
    for rank in range(2):
        moved, *_, again = after[rank]
        for index, layer in enumerate((1, 2, 3)):
            mine = [
                (expert, share)
                for expert, where, share in zip(*vars(REPLICATED).values(), strict=True)
                if where == rank
            ]
            expected = sum(share * load[index, expert] for expert, share in mine)
            assert moved[layer][0] == pytest.approx(float(expected), abs=4)  # two ranks round twice each
            owner = load[index, rank * 4 : rank * 4 + 4].sum()
            assert before[rank][0][layer][0] == owner
            assert moved[layer][1] > 0
            assert again[layer][0] > moved[layer][0]


def test_slots_say_what_does_not_fit():
    """Faults of a placement, all at once; the plain one has none."""
    assert owned(8, 2).faults(8, 2) == []
    assert REPLICATED.faults(8, 2) == []
    found = Slots((0, 1, 9, 1), (0, 0, 0, 1), (0.5, 0.5, 1.0, 0.5)).faults(2, 2)
    assert [text.split(",")[0] for text in found] == [
        "slot_gpu must give each of the 2 ranks of ep the same number of slots",
        "the shares of expert 0 must sum to 1",
        "slot_expert must lie between 0 and 1",
    ]
    assert Slots((0,), (0, 1), (1.0,)).faults(1, 1) == [
        "slot_expert, slot_gpu and share must have one entry a slot each"
    ]


def test_slots_are_read_from_a_placement():
    """The rows of a placement.json by layer."""
    row = {"layer": 3, "slot_expert": [1, 0], "slot_gpu": [0, 1], "share": [1.0, 1.0], "metrics": {}}
    assert slots_by_layer([row]) == {3: Slots((1, 0), (0, 1), (1.0, 1.0))}


def badly_placed(row):
    """The message of a placement that doesn't fit."""
    try:
        made(row)
    except ValueError as error:
        return str(error)
    return ""


def test_a_placement_that_does_not_fit_is_refused(pool):
    """The message names the layer and the reason."""
    row = Row("", "moe", 2, {"ep": 2}, options=Options(placement={2: Slots((0,), (0,), (1.0,))}))
    assert "placement of layer 2: slot_gpu must give" in pool.run(badly_placed, row, ranks=2)[0]


def test_what_can_not_run_is_refused_at_once():
    """All reasons in one error."""
    with pytest.raises(InputError) as caught:
        refuse(model("windows"), Degrees(3, tp=3), Choices(precision="fp8", optimizer="shampoo"))
    text = str(caught.value)
    for word in ("precision", "optimizer", "vocabulary of 64", "2 key-value heads"):
        assert word in text
    refuse(model("dense"), Degrees(2, tp=2), Choices(precision="bf16", optimizer="sgd"))


def test_deferred_weight_gradients_are_the_gradients():
    """Input gradients at once, weight gradients when asked; both as torch's own."""
    torch.manual_seed(0)
    layer, weight = torch.nn.Linear(4, 5), torch.nn.Parameter(torch.randn(5, 3))
    x = torch.randn(2, 6, 4, requires_grad=True)
    layer(x).matmul(weight).square().sum().backward()
    expected = [each.grad.clone() for each in (x, layer.weight, layer.bias, weight)]
    for each in (x, layer.weight, layer.bias, weight):
        each.grad = None
    deferred = Deferred()
    with deferred:
        loss = layer(x).matmul(weight).square().sum()
    loss.backward()
    assert layer.weight.grad is None
    assert weight.grad is None
    torch.testing.assert_close([x.grad, layer.bias.grad], [expected[0], expected[2]])
    deferred.take()()
    torch.testing.assert_close([layer.weight.grad, weight.grad], [expected[1], expected[3]])


def saved(row, steps):
    """Names and shapes of a state after some steps, and what a step gives after the state is written back."""
    trainer, tokens = made(row)
    for _ in range(steps):
        trainer.step(tokens)
    kept = {
        name: value.to_local().clone() if hasattr(value, "to_local") else value.clone()
        for name, value in trainer.state().items()
    }
    after = [trainer.step(tokens) for _ in range(2)]
    with torch.no_grad():
        for name, value in trainer.state().items():
            (value.to_local() if hasattr(value, "to_local") else value).copy_(kept[name])
    assert [trainer.step(tokens) for _ in range(2)] == after
    return {name: tuple(value.shape) for name, value in trainer.state().items()}


def test_state_is_canonical_and_shares_memory(pool):
    """Every layout names the same whole tensors, and writing into them rewinds the training bit for bit."""
    alone = pool.run(saved, Row("", "latent", 1, {"micro_batch": 2}), 2, ranks=1)[0]
    assert alone["model.embedding.tokens.weight"] == alone["optimizer.embedding.tokens.weight.exp_avg"] == (64, 32)
    row = Row("", "latent", 4, {"pp": 2, "ep": 2, "micro_batch": 2}, {"zero": 1})
    parts = pool.run(saved, row, 2, ranks=4)
    assert {name: shape for part in parts for name, shape in part.items()} == alone


def test_spans_cost_nothing_without_a_recorder():
    """Only what runs inside `recording` is kept, the innermost recorder's."""
    with span("lost"):
        pass
    with (
        recording(Recorder()) as outer,
        span("kept", phase="data", size=8),
        recording(Recorder()) as inner,
        span("inner"),
    ):
        pass
    assert [(each.kind, each.phase, each.bytes) for each in outer.spans] == [("kept", "data", 8)]
    assert [each.kind for each in inner.spans] == ["inner"]


def add(value):
    """A sum over the ranks."""
    total = torch.tensor([float(value)])
    dist.all_reduce(total)
    return dist.get_rank(), total.item()


def fail_on(rank, how):
    """One rank raises or dies, the others wait for it in a collective."""
    if dist.get_rank() == rank:
        if how == "raise":
            raise KeyError("missing weight")
        os.kill(os.getpid(), signal.SIGKILL)
    return add(1)


def test_ranks_run_again_after_a_failure():
    """A failed rank is named with its reason, the others don't hang, and the next run starts afresh."""
    with Ranks(2, timeout=20.0) as pool:
        assert pool.run(add, 2) == [(0, 4.0), (1, 4.0)]
        assert pool.run(add, 3, ranks=1) == [(0, 3.0)]
        first = pool.pids
        with pytest.raises(RankFailed, match="rank 1: KeyError: 'missing weight'") as caught:
            pool.run(fail_on, 1, "raise")
        assert "fail_on" in caught.value.failures[1]
        assert pool.run(add, 1) == [(0, 2.0), (1, 2.0)]
        assert not set(first) & set(pool.pids)
        with pytest.raises(RankFailed, match="rank 0: the process ended with code -9"):
            pool.run(fail_on, 0, "die")
    assert pool.pids == []
