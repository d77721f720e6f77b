"""Objectives: what a batch becomes, what an output costs, and evaluation, the same on any layout."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from executor.check import random_tokens  # noqa: E402
from executor.objective import (  # noqa: E402
    IGNORED,
    Classification,
    LanguageModel,
    MaskedLanguageModel,
    View,
    objective_of,
    refuse_objective,
)
from executor.trainer import Trainer  # noqa: E402
from planner.errors import InputError  # noqa: E402
from tests.executor import families  # noqa: E402
from tests.executor.grid import GRID, WORKLOAD, Row, model  # noqa: E402

ROWS = {row.name: row for row in GRID}
PLANS = ("zero3", "hybrid-shards", "tp", "tp-whole-tokens", "interleaved", "ring", "zb-h1", "dp-pp", "dp-ep-zero3")


def _view(positions=8, ahead=0):
    return View(WORKLOAD, torch.arange(positions), ahead, None, lambda x: x)


def evaluated(row, most, objective=None):
    """Losses of training before and after an evaluation, and the evaluation of `most` sequences shared unevenly."""
    trainer = Trainer(model(row.shape), row.degrees, row.chosen, WORKLOAD, lr=1e-2, options=row.options)
    tokens = random_tokens(trainer.model, WORKLOAD, 0)
    first = trainer.step(tokens[list(trainer.rows)])
    shares = [most // trainer.meshes.size("dp")] * trainer.meshes.size("dp")
    shares[0] += most - sum(shares)
    start = sum(shares[: trainer.meshes.rank("dp")])
    found = trainer.evaluate(tokens[start : start + shares[trainer.meshes.rank("dp")]])
    again = trainer.evaluate(tokens[start : start + shares[trainer.meshes.rank("dp")]])
    assert (again.loss, again.count) == (found.loss, found.count)
    second = trainer.step(tokens[list(trainer.rows)])
    rank = (trainer.meshes.rank("dp"), trainer.meshes.rank("cp"))
    return first, second, found.loss, found.count, rank, found.predictions, found.labels


@pytest.mark.parametrize("name", PLANS)
def test_evaluation_equals_one_process_and_leaves_the_training_alone(pool, name):
    """Loss, count and answers of 7 sequences, which no layout divides, are those of one process."""
    row = ROWS[name]
    alone = Row("alone", row.shape, 1, {"micro_batch": row.degrees.micro_batch})
    expected = pool.run(evaluated, alone, 7, ranks=1)[0]
    ranks = pool.run(evaluated, row, 7, ranks=row.ranks)
    for first, second, loss, count, *_ in ranks:
        assert (first, second) == pytest.approx(expected[:2], rel=1e-5)
        assert loss == pytest.approx(expected[2], rel=1e-5)
        assert count == expected[3] == 7 * WORKLOAD.seq_len
    seen = {rank: (answers, labels) for *_, rank, answers, labels in ranks}
    assert all(torch.equal(answers, seen[rank][0]) for *_, rank, answers, _ in ranks)
    if "ring" not in name:
        joined = torch.cat([answers for _, (answers, _) in sorted(seen.items())])
        assert (joined == expected[5]).float().mean() > 0.99  # equal logits may round either way
        assert torch.equal(torch.cat([labels for _, (_, labels) in sorted(seen.items())]), expected[6])


def test_a_step_with_no_update_loses_what_the_evaluation_loses(pool):
    """The mean over the same sequences is the training loss."""
    first, _, loss, count, *_ = pool.run(still, ROWS["one"], ranks=1)[0]
    assert loss / count == pytest.approx(first, rel=1e-6)


def still(row):
    """Training and evaluation loss of the same weights and sequences."""
    trainer = Trainer(model(row.shape), row.degrees, row.chosen, WORKLOAD)
    tokens = random_tokens(trainer.model, WORKLOAD, 0)
    found = trainer.evaluate(tokens)
    return trainer.forward_backward(tokens), None, found.loss, found.count


def masked(row, steps):
    """Losses of training on hidden tokens, of which the ranks have different numbers."""
    trainer = Trainer(model(row.shape), row.degrees, row.chosen, WORKLOAD, lr=1e-2, objective=MaskedLanguageModel())
    losses = []
    for step in range(steps):
        tokens = random_tokens(trainer.model, WORKLOAD, step)[:, 1:]
        hidden = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(step)) < 0.15
        hidden[: len(hidden) // 2] &= hidden[: len(hidden) // 2].roll(1, 1)
        batch = (tokens.masked_fill(hidden, 0), tokens.masked_fill(~hidden, IGNORED))
        losses.append(trainer.step([each[list(trainer.rows)] for each in batch]))
    return losses


@pytest.mark.parametrize("name", ["zero3", "tp", "1f1b", "ring"])
def test_hidden_tokens_weigh_alike_wherever_they_are(pool, name):
    """The masked loss is a mean over the hidden tokens of the global batch, not a mean of the ranks' means."""
    expected = pool.run(masked, Row("alone", "dense", 1, {"micro_batch": 2}), 3, ranks=1)[0]
    assert pool.run(masked, ROWS[name], 3, ranks=2)[0] == pytest.approx(expected, rel=1e-5)


def test_labels_of_prediction_modules_run_ahead():
    """Each module predicts one token further; what lies behind the end does not count."""
    tokens = torch.arange(18).view(2, 9)
    work = LanguageModel().work(tokens, _view(ahead=2))
    assert torch.equal(work.labels[0, 0], tokens[0, 1:])
    assert work.labels[0, 2].tolist() == [3, 4, 5, 6, 7, 8, IGNORED, IGNORED]
    assert torch.equal(work.extra["ahead"][..., 1], work.labels[:, 1].clamp(min=0))


def test_classification_is_torchs_cross_entropy():
    """Smoothed in training and plain when judged; the answers are the likeliest classes."""
    output, labels = torch.randn(6, 5), torch.randint(5, (6,))
    objective = Classification(5, smoothing=0.1)
    expected = functional.cross_entropy(output, labels, label_smoothing=0.1) * 6
    torch.testing.assert_close(objective.loss(output, labels, _view()), expected)
    loss, answers = objective.judge(output, labels, _view())
    torch.testing.assert_close(loss, functional.cross_entropy(output, labels) * 6)
    assert torch.equal(answers, output.argmax(-1))


@pytest.mark.parametrize("objective", [Classification(4), LanguageModel()])
def test_an_objective_that_the_head_has_no_outputs_for_is_refused(objective):
    """A classifier of five classes is trained on five, a language model on none; what others define is let through."""
    classifier = families.model("classifier")
    with pytest.raises(InputError, match="classifier predicts one of 5 classes"):
        refuse_objective(objective, classifier)
    with pytest.raises(InputError, match="dense predicts next tokens"):
        refuse_objective(Classification(5), model("dense"))
    refuse_objective(objective_of(classifier), classifier)
    refuse_objective(MaskedLanguageModel(), model("dense"))


def test_padding_counts_nothing():
    """Rows added to fill a micro-batch repeat a sample and have no label."""
    images, labels, there = torch.randn(3, 4), torch.tensor([1, 0, 2]), torch.ones(3, 4, dtype=torch.long)
    work = Classification(3).work((images, labels, there), _view(4)).padded(5)
    assert work.labels.tolist() == [1, 0, 2, IGNORED, IGNORED]
    assert torch.equal(work.inputs[4], images[2])
    assert work.extra["there"].shape == (5, 4)
    assert work.extra["there"].dtype == torch.bool


def test_an_empty_share_is_padded_with_zeros():
    """A rank without rows takes part with samples that count nothing."""
    work = Classification(3).work((torch.randn(0, 4), torch.zeros(0, dtype=torch.long)), _view()).padded(2)
    assert work.inputs.abs().sum() == 0.0
    assert work.labels.tolist() == [IGNORED] * 2
