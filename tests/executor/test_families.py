"""BERT, ViT and residual networks train on many ranks as in one process, whatever the plan."""

import functools
from dataclasses import replace
from math import prod

import pytest

torch = pytest.importorskip("torch")

from executor.check import compare  # noqa: E402
from executor.refusal import refuse  # noqa: E402
from executor.stages import contents  # noqa: E402
from hwprofiles import load  # noqa: E402
from planner.errors import InputError  # noqa: E402
from planner.rules import Case, broken  # noqa: E402
from tests.executor import families  # noqa: E402
from tests.executor.families import SHAPES, model, workload  # noqa: E402
from tests.executor.grid import Row  # noqa: E402

TOLERANCE = 1e-5
STEPS = 20


AXES = ("tp", "pp", "vpp", "cp", "micro_batch")


def _row(name, shape, ranks, **settings):
    axes = {"micro_batch": 2} | {key: value for key, value in settings.items() if key in AXES}
    choices = {key: value for key, value in settings.items() if key not in AXES}
    return Row(f"{shape}-{name}", shape, ranks, axes, choices)


TEXT = (
    *(_row(f"zero{zero}", shape, 2, zero=zero) for zero in (0, 3) for shape in ("masked", "classifier", "vit")),
    *(_row("tp", shape, 2, tp=2) for shape in ("masked", "classifier", "vit")),
    *(_row("tp-whole", shape, 2, tp=2, sequence_parallel=False) for shape in ("masked", "classifier", "vit")),
    *(_row("pp", shape, 2, pp=2) for shape in ("masked", "classifier", "vit")),
    _row("cp", "masked", 2, cp=2),
    _row("zb-h1", "masked", 2, pp=2, schedule="zb-h1", recompute="selective"),
    _row("full", "classifier", 2, recompute="full"),
    _row("tp-pp", "masked", 4, tp=2, pp=2, zero=1),
    _row("dp-tp", "classifier", 4, tp=2, zero=3),
    _row("interleaved", "vit", 4, pp=2, vpp=2, schedule="interleaved", zero=2),
)
IMAGES = (
    *(_row(f"zero{zero}", "resnet", 2, zero=zero, micro_batch=4) for zero in (0, 1, 3)),
    _row("full", "resnet", 2, recompute="full", micro_batch=4),
    _row("zero3", "bottleneck", 2, zero=3, micro_batch=4),
    _row("pp", "resnet", 2, pp=2),
    _row("pp", "bottleneck", 2, pp=2, schedule="zb-h1", recompute="selective"),
    _row("dp-pp", "bottleneck", 4, pp=2, zero=1, micro_batch=4),
    _row("interleaved", "resnet", 2, pp=2, vpp=2, schedule="interleaved"),
)
ROWS = {row.name: row for row in (*TEXT, *IMAGES)}
CURVES = (
    "masked-zero0", "masked-zero3", "masked-tp", "masked-pp", "classifier-zero0", "classifier-tp", "vit-pp",
    "resnet-zero0", "resnet-zero3", "resnet-full", "resnet-pp",
)  # fmt: skip


@pytest.fixture(scope="module")
def alone(pool):
    """What one process measures; with batch norms its micro-batch is that of all ranks of dp together."""

    @functools.cache
    def measure(function, shape, micro_batch, *arguments):
        return pool.run(function, Row("alone", shape, 1, {"micro_batch": micro_batch}), *arguments, ranks=1)[0]

    def of(function, row, *arguments):
        together = row.degrees.dp if row in IMAGES else 1
        return measure(function, row.shape, row.degrees.micro_batch * together, *arguments)

    return of


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_loss_gradients_and_statistics_equal_one_process(pool, alone, row):
    """Padding, token types, tied embeddings, classifiers of one token, batch norms: as in one process."""
    case = Case(model(row.shape), load.cluster("cpu-loopback", row.ranks), workload(row.shape), row.chosen, row.degrees)
    assert broken(case) == []
    found = pool.run(families.measured, row, ranks=row.ranks)[0]
    error = compare(alone(families.measured, row), found)
    assert error.loss_error <= TOLERANCE
    assert error.gradient_error <= TOLERANCE


@pytest.mark.parametrize("name", CURVES)
def test_training_and_evaluation_follow_one_process(pool, alone, name):
    """Losses of 20 steps to 1e-4, then an evaluation with running statistics."""
    row = ROWS[name]
    expected = alone(families.curve, row, STEPS)
    ranks = pool.run(families.curve, row, STEPS, ranks=row.ranks)
    for losses, total, count, _ in ranks:
        assert losses == pytest.approx(expected[0], rel=1e-4)
        assert total == pytest.approx(expected[1], rel=1e-3)
        assert count == expected[2]
    seen = [answers for *_, answers in (ranks if row.degrees.dp > 1 else ranks[:1])]
    joined = [answer for answers in seen for answer in answers]
    same = sum(a == b for a, b in zip(joined, expected[3], strict=True))
    assert same >= 0.98 * len(joined)
    assert expected[0][-1] != expected[0][0]


@pytest.mark.parametrize(
    ("first", "second"), [("resnet-zero3", "resnet-pp"), ("resnet-pp", "resnet-zero0"), ("masked-tp", "masked-pp")]
)
def test_a_checkpoint_goes_on_in_another_layout(pool, tmp_path, first, second):
    """Running statistics are in it: the evaluation is the same, and the next step too."""
    expected = pool.run(families.saved, ROWS[first], str(tmp_path), ranks=2)[0]
    alone = pool.run(families.loaded, ROWS[first], str(tmp_path), ranks=2)[0]
    found = pool.run(families.loaded, ROWS[second], str(tmp_path), ranks=2)[0]
    assert alone[:2] == pytest.approx(expected, rel=1e-6)
    assert found[:2] == pytest.approx(expected, rel=1e-5)
    if "masked" in first:  # batch norms of micro-batches of other sizes train apart from here on
        assert found[2] == pytest.approx(alone[2], rel=1e-5)


@pytest.mark.parametrize("name", ["masked-zero3", "classifier-tp", "vit-pp", "resnet-zero0", "resnet-pp"])
def test_half_precision_is_near_one_process(pool, alone, name):
    """In bf16 too, with the statistics of batch norms in fp32."""
    row = ROWS[name]
    half = replace(row, choices=row.choices | {"precision": "bf16"})
    loss, gradients = pool.run(families.measured, half, ranks=row.ranks)[0]
    expected, exact = alone(families.measured, row)
    assert loss == pytest.approx(expected, rel=1e-2)
    together, difference = (
        torch.cat([each.flatten() for each in found])
        for found in zip(*((exact[key], gradients[key] - exact[key]) for key in exact), strict=True)
    )
    assert 1e-4 < difference.norm() / together.norm() < 0.1


@pytest.mark.parametrize(
    ("shape", "axes", "reason"),
    [
        ("resnet", {"tp": 2}, "convolutions of resnet are not cut"),
        ("resnet", {"cp": 2}, "works on whole sequences"),
        ("vit", {"cp": 2}, "works on whole sequences"),
        ("classifier", {"cp": 2}, "works on whole sequences"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(shape, axes, reason):
    """By the planner's rules, and by the executor before it builds anything."""
    row = _row("refused", shape, 2, **axes)
    found = broken(Case(model(shape), load.cluster("cpu-loopback", 2), workload(shape), row.chosen, row.degrees))
    assert len(found) == 1
    assert reason in found[0].expected
    with pytest.raises(InputError, match=reason):
        refuse(model(shape), row.degrees, row.chosen)


@pytest.mark.parametrize("name", SHAPES)
def test_stages_send_what_the_planner_prices(name):
    """Hidden states exactly; between convolutions each cut its own image, the widest of which is priced."""
    plan = model(name)
    crossing = [each.gives for each in contents(plan, workload(name).seq_len, plan.layers + 2, 1)[:-1]]
    if plan.kinds[0].takes:
        assert max(map(prod, crossing)) == plan.boundary
        assert {kind.takes for kind in plan.kinds} <= set(crossing)
    else:
        assert set(crossing) == {()}
        assert plan.boundary == plan.hidden


def test_the_shapes_are_all_trained():
    """Each small model stands in some plan."""
    assert {row.shape for row in ROWS.values()} == set(SHAPES)
