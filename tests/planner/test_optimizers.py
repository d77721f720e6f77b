"""What each optimizer keeps, moves and multiplies, against counts by hand."""

from dataclasses import replace

import pytest

from planner.cost.update import covered, moved_bytes, orthogonal_time, orthogonalize_time, shares, update_flops
from planner.estimate import estimate, units
from planner.layers.base import Linear
from planner.layout import layer_kinds
from planner.optimizers import MASTERS, OPTIMIZERS
from planner.optimizers.base import master_bytes, newton_schulz_flops, weight_traffic
from planner.precision import PRECISIONS
from planner.sharding import held, stage_held
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import DENSE, KIMI_K2, MOE, TIED, setting

STATES = {
    "adam": 8, "adamw": 8, "adam-bf16": 4, "adam-8bit": 2.03125, "sgd": 4, "sgd-plain": 0, "lion": 4,
}  # fmt: skip


def whole(shape, world=1, choices=None, **degrees):
    """The optimizer bytes of one stage that holds everything, and the setting."""
    where = setting(shape, world, choices or Choices(zero=0), Workload(512, 64, 1e9))
    return float(estimate(where, Degrees(world, **degrees)).stages[0].optimizer), where


@pytest.mark.parametrize("name", STATES)
def test_an_elementwise_optimizer_keeps_its_states_and_the_master(name):
    """State and fp32 master times the parameters; a bf16 master in place saves its four bytes."""
    total, where = whole(DENSE, choices=Choices(zero=0, optimizer=name))
    parameters = where.model.total_parameters()
    assert total == pytest.approx((STATES[name] + 4) * parameters)
    lean, _ = whole(DENSE, choices=Choices(zero=0, optimizer=name, master="bf16-stochastic"))
    assert total - lean == pytest.approx(4 * parameters)


def test_adafactor_keeps_rows_and_columns():
    """Each matrix and table keeps rows + columns of fp32, each vector itself; no first moment."""
    total, where = whole(DENSE, choices=Choices(zero=0, optimizer="adafactor"))
    h, f, kv, vocab, layers = 512, 2048, 4 * 64, 4096, 6
    matrices = [(h, h + 2 * kv), (h, h), (h, 2 * f), (f, h)] * layers + [(vocab, h), (h, vocab)]
    vectors = where.model.total_parameters() - sum(a * b for a, b in matrices)
    expected = 4 * where.model.total_parameters() + 4 * sum(a + b for a, b in matrices) + 4 * vectors
    assert total == pytest.approx(expected)


def test_adafactor_counts_a_tied_matrix_once():
    """The output matrix that is the embedding adds neither parameters nor rows and columns."""
    total, where = whole(TIED, choices=Choices(zero=0, optimizer="adafactor"))
    vectors, matrices = 0, 0
    for kind, n in [(where.model.kinds[0], 6), (where.model.embedding, 1)]:
        for part in kind.parts:
            size = sum(replace(kind, parts=(part,)).parameters().values())
            if covered(part, tables=True):
                edges = (part.inputs + part.outputs) if isinstance(part, Linear) else (part.rows + part.width)
                bias = part.outputs if isinstance(part, Linear) and part.bias else 0
                matrices, vectors = matrices + n * edges, vectors + n * bias
            else:
                vectors += n * size
    vectors += where.model.total_parameters() - sum(
        n * sum(kind.parameters().values()) for kind, n in [(where.model.kinds[0], 6), (where.model.embedding, 1)]
    )
    assert total == pytest.approx(4 * where.model.total_parameters() + 4 * (matrices + vectors))


def test_muon_keeps_one_momentum_for_matrices_and_two_moments_for_the_rest():
    """4 bytes for attention, feed-forward, router and experts; 8 for embedding, output matrix and vectors; master 4."""
    total, where = whole(MOE, choices=Choices(zero=0, optimizer="muon"))
    hidden = sum(
        p.inputs * p.outputs * p.copies
        for kind in where.model.order
        for p in where.model.kinds[kind].parts
        if isinstance(p, Linear)
    )
    everything = where.model.total_parameters()
    assert total == pytest.approx(4 * everything + 4 * hidden + 8 * (everything - hidden))


def test_newton_schulz_is_counted_by_its_three_products():
    """2 m² n for X Xᵀ, 2 m³ for its square, 2 m² n for the product, five times; the shorter side is m either way."""
    assert newton_schulz_flops(2, 3, 5) == 5 * (2 * 4 * 3 + 2 * 8 + 2 * 4 * 3)
    assert newton_schulz_flops(3, 2, 5) == newton_schulz_flops(2, 3, 5)


def test_the_flop_of_an_update_are_those_of_every_matrix():
    """A mixture's update: Newton-Schulz of each expert's own matrices, and a few FLOP a parameter."""
    where = setting(MOE, 1, Choices(optimizer="muon"))
    layer = where.model.kinds[1]
    schulz = sum(p.copies * newton_schulz_flops(p.inputs, p.outputs, 5) for p in layer.parts if isinstance(p, Linear))
    matrices = sum(p.copies * p.inputs * p.outputs for p in layer.parts if isinstance(p, Linear))
    rest = sum(layer.parameters().values()) - matrices
    assert update_flops(layer, where) == pytest.approx(schulz + 7 * matrices + 14 * rest)
    plain = setting(MOE, 1, Choices(optimizer="sgd-plain"))
    assert update_flops(layer, plain) == 2 * sum(layer.parameters().values())


def test_the_bytes_of_an_update_are_reads_and_writes():
    """Adam reads 16 and writes 14 bytes a parameter, with bf16 masters 4 of 10 for the weight; ZeRO shares them."""
    where = setting(DENSE, 4, Choices(optimizer="adam"))
    has = held(where.model.kinds[0], Degrees(4))
    assert moved_bytes(has, where, Degrees(4)) == pytest.approx(30 * has.dense / 4)
    lean = setting(DENSE, 4, Choices(optimizer="adam", master="bf16", zero=0))
    assert moved_bytes(has, lean, Degrees(4)) == pytest.approx(24 * has.dense)


@pytest.mark.parametrize("name", sorted(PRECISIONS))
def test_what_a_master_copy_takes(name):
    """fp32 four bytes unless the weights are fp32; bf16 none beside bf16 weights, two beside coarser ones."""
    precision = PRECISIONS[name]
    expected = {"bf16": (4, 0), "fp32": (0, 0)}.get(name, (4, 2))
    assert (master_bytes("fp32", precision), master_bytes("bf16", precision)) == expected
    assert weight_traffic("fp32", precision) == 10
    assert weight_traffic("bf16", precision) == 4 + expected[1]


def test_every_optimizer_and_master_has_its_source():
    """Each names a paper, and whatever can go wrong with it is cited."""
    assert {"adam", "adam-bf16", "sgd"} <= OPTIMIZERS.keys()
    assert all(each.source for each in OPTIMIZERS.values())
    assert MASTERS["bf16"]
    assert all(fact.source for facts in MASTERS.values() for fact in facts)


def test_newton_schulz_is_shared_by_zero_but_never_below_one_matrix():
    """Twice the replicas halve it, until each rank has one matrix: that one is never cut."""
    where = setting(KIMI_K2, 8192, Choices(optimizer="muon"), Workload(4096, 8192, 1e12))
    parts = units(where, Degrees(8192, pp=16, ep=8))
    times = []
    for world in (1024, 2048, 16 * 2**20):
        degrees = Degrees(world, pp=16, ep=8)
        stage = stage_held(tuple(part.cost.held for part in parts), (0, 4, 0, 0), where.model, degrees)
        times.append(float(orthogonalize_time(stage.matrices, where, degrees)))
    assert times[1] < 0.75 * times[0]
    largest = {"dense": 0.0, "expert": 0.0}
    for part in layer_kinds(where.model)[1].parts:
        if isinstance(part, Linear):
            kind = "expert" if part.expert else "dense"
            largest[kind] = max(largest[kind], orthogonal_time(part, 5, where))
    assert times[2] == pytest.approx(sum(largest.values()))


def test_muon_gathers_what_zero_and_tp_have_cut():
    """The update of Muon is longer than Adam's, longest where matrices must be gathered over tp."""
    steps = {}
    for name, degrees in (("adam", Degrees(64, tp=4)), ("muon", Degrees(64)), ("muon", Degrees(64, tp=4))):
        where = setting(DENSE, 64, Choices(optimizer=name), Workload(2048, 64, 1e9))
        steps[name, degrees.tp] = float(estimate(where, degrees).step.optimizer)
    assert steps["muon", 4] > steps["muon", 1] > steps["adam", 4]


def test_shares_follow_zero():
    """Without ZeRO nothing is shared; with it dense parameters by dp · cp, experts by edp."""
    degrees = Degrees(64, tp=2, ep=8)
    assert shares(setting(MOE, 64, Choices(zero=0)), degrees) == (1.0, 1.0)
    assert shares(setting(MOE, 64, Choices(zero=2)), degrees) == (32.0, 8.0)
