"""Distillation: what is learnt, who gets gradients, and a teacher on the same ranks or on its own."""

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402

from executor.methods.distill import Distillation, Here, divergence  # noqa: E402
from executor.methods.recipe import Distilling, distill  # noqa: E402
from executor.methods.roles import There, serve, split  # noqa: E402
from executor.methods.settings import Distill, read  # noqa: E402
from executor.model import build  # noqa: E402
from executor.objective import IGNORED, Classification, LanguageModel, View  # noqa: E402
from executor.parallel.collectives import all_reduce  # noqa: E402
from executor.trainer import Trainer  # noqa: E402
from planner.errors import InputError  # noqa: E402
from planner.strategy import Degrees, Workload  # noqa: E402
from tests.executor import grid  # noqa: E402
from tests.executor.grid import WORKLOAD, Row, model  # noqa: E402

HOW = Distill("teacher", temperature=3.0, weight=0.7)


def test_the_divergence_is_that_of_torch():
    """T² · KL over the labels that count, to the rounding of fp32 sums; nothing when both say the same."""
    student, teacher = torch.randn(2, 5, 11), torch.randn(2, 5, 11)
    labels = torch.randint(0, 11, (2, 5))
    labels[0, :2] = IGNORED
    kept = labels != IGNORED
    expected = nn.functional.kl_div(
        (student[kept] / 3.0).log_softmax(-1), (teacher[kept] / 3.0).log_softmax(-1), reduction="sum", log_target=True
    )
    torch.testing.assert_close(divergence(student, teacher, labels, 3.0), 9.0 * expected, rtol=1e-5, atol=1e-5)
    assert float(divergence(teacher, teacher, labels, 3.0)) == pytest.approx(0.0, abs=1e-5)


def view(samples=8):
    """How one process sees images."""
    workload = Workload(seq_len=1, global_batch=samples, tokens=1e6)
    return View(workload, torch.arange(1), ahead=0, vocabulary=None, total=lambda x: x)


def test_only_the_student_gets_a_gradient():
    """The teacher's parameters ask for none, and the loss is the weighted sum of both parts."""
    torch.manual_seed(0)
    teacher, student = nn.Linear(6, 4), nn.Linear(6, 4)
    images, labels = torch.randn(8, 6), torch.randint(0, 4, (8,))
    own = Classification(4)
    objective = Distillation(own, Here(teacher), HOW)
    work = objective.work((images, labels), view())
    losses = []
    for part in range(2):  # two micro-batches
        here = slice(4 * part, 4 * part + 4)
        output = student(images[here])
        soft = divergence(output, teacher(images[here]), labels[here], 3.0)
        expected = 0.3 * own.loss(output, labels[here], view()) + 0.7 * soft
        found = objective.loss(output, work.labels.tensor_split(2)[part], view())
        torch.testing.assert_close(found, expected)
        losses.append(found)
    sum(losses).backward()
    assert student.weight.grad is not None
    assert all(each.grad is None and not each.requires_grad for each in teacher.parameters())


def test_labels_from_elsewhere_are_refused():
    """A micro-batch that is no part of the batch would be taught with the wrong samples."""
    objective = Distillation(Classification(4), Here(nn.Linear(6, 4)), HOW)
    objective.work((torch.randn(8, 6), torch.zeros(8, dtype=torch.int64)), view())
    with pytest.raises(ValueError, match="view of the batch"):
        objective.loss(torch.randn(4, 4), torch.zeros(4, dtype=torch.int64), view())


def distilled(row, seed):
    """Losses and gradients of a student beside a teacher of the same vocabulary, on some layout."""
    teacher = build(model("tied"), seed=seed)
    objective = Distillation(LanguageModel(), Here(teacher), HOW)
    trainer = Trainer(model(row.shape), row.degrees, row.chosen, WORKLOAD, options=row.options, objective=objective)
    tokens = grid.random_tokens(trainer.model, WORKLOAD, 0)[list(trainer.rows)]
    loss = trainer.forward_backward(tokens)
    gradients = trainer.gradients()
    trainer.drop_gradients()
    evaluated = trainer.evaluate(tokens)
    return loss, gradients, evaluated.loss / evaluated.count


LAYOUTS = {
    "tp": Row("", "dense", 2, {"tp": 2, "micro_batch": 2}),
    "cp": Row("", "dense", 2, {"cp": 2, "micro_batch": 4}),
    "pp": Row("", "dense", 2, {"pp": 2, "micro_batch": 2}),
    "fsdp": Row("", "dense", 2, {"micro_batch": 2}, {"zero": 3}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_distillation_is_the_same_on_every_layout(pool, layout):
    """Loss and gradients on two ranks are those of one process: a cut vocabulary, a cut sequence, stages, shards."""
    loss, gradients, plain = pool.run(distilled, Row("", "dense", 1, {"micro_batch": 4}), 5, ranks=1)[0]
    found, parallel, evaluated = pool.run(distilled, LAYOUTS[layout], 5, ranks=2)[0]
    assert found == pytest.approx(loss, rel=1e-5)
    assert evaluated == pytest.approx(plain, rel=1e-5)
    assert loss != pytest.approx(plain, rel=1e-2)
    for name, gradient in gradients.items():
        torch.testing.assert_close(parallel[name], gradient, rtol=1e-3, atol=1e-6)


def apart(seed):
    """Two students train beside one teacher on a rank of its own, or a single process does with the teacher inside."""
    degrees, size = Degrees(2, micro_batch=4), dist.get_world_size()
    teacher = Here(build(model("tied"), seed=seed))
    chosen = Row("", "dense", 2).chosen
    if size == 3:
        role = split(1, timeout=30.0)
        if role.teaches:
            return serve(teacher, role)
        there = There(role)
    else:
        there = teacher
    objective = Distillation(LanguageModel(), there, HOW)
    trainer = Trainer(model("dense"), degrees, chosen, WORKLOAD, objective=objective)
    tokens = grid.random_tokens(trainer.model, WORKLOAD, 0)[list(trainer.rows)]
    losses = [trainer.step(tokens) for _ in range(3)]
    if size == 3:
        there.done()
    return losses


def test_a_teacher_on_a_rank_of_its_own(pool):
    """Two students with a remote teacher train as two with the teacher beside them; it answers each micro-batch."""
    together = pool.run(apart, 5, ranks=2)
    *students, questions = pool.run(apart, 5, ranks=3)
    assert students == together
    assert questions == 3 * 2  # steps, and a micro-batch of each student


def hidden(weight):
    """A student whose hidden states follow a wider teacher's behind a projection: difference before and after."""
    torch.manual_seed(0)
    wide = build(model("tied"), seed=3)
    method = Distilling(Distill("teacher", weight=0.0, hidden=weight), "r")
    method._teacher = Here(wide, hidden=True)
    method._told = {"answers": 64, "hidden": 32}
    objective = method.wrap(LanguageModel())
    trainer = Trainer(
        model("dense"), Degrees(1, micro_batch=4), Row("", "dense", 1).chosen, WORKLOAD, objective=objective,
        prepare=method.prepare,
    )  # fmt: skip
    method.begin(trainer)
    tokens = grid.random_tokens(trainer.model, WORKLOAD, 0)[list(trainer.rows)]
    names = [each.name for each in trainer.held]
    losses = [trainer.step(tokens) for _ in range(8)]
    return names, losses, trainer.evaluate(tokens)


def test_hidden_states_follow_the_teacher(pool):
    """The projection is trained with the student, and the loss with its part falls."""
    names, losses, evaluated = pool.run(hidden, 1.0, ranks=1)[0]
    assert "distill_projection.matrix.weight" in names
    assert losses[-1] < losses[0]
    plain = pool.run(hidden, 0.0, ranks=1)[0]
    assert losses[0] > plain[1][0]
    assert "distill_projection.matrix.weight" not in plain[0]
    assert evaluated.loss / evaluated.count < losses[-1]


def soft(part):
    """The soft loss of a cut vocabulary and the gradient of this rank's part."""
    torch.manual_seed(1)
    student, teacher, labels = torch.randn(3, 4, 8), torch.randn(3, 4, 8), torch.zeros(3, 4, dtype=torch.int64)
    labels[1] = IGNORED
    group = dist.group.WORLD if part == "cut" else None
    mine = student.chunk(2, -1)[dist.get_rank()] if group else student
    mine = mine.clone().requires_grad_()
    loss = divergence(mine, teacher, labels, 2.0, group)
    loss.backward()
    same = all_reduce(loss.detach(), dist.group.WORLD, "tensor", "max")
    return float(loss.detach()), float(same), mine.grad


def test_a_cut_vocabulary_gives_the_same_loss_and_gradient(pool):
    """Each rank's gradient is its slice of the whole one."""
    loss, _, gradient = pool.run(soft, "whole", ranks=1)[0]
    parts = pool.run(soft, "cut", ranks=2)
    assert all(found == pytest.approx(loss, rel=1e-6) for found, _, _ in parts)
    torch.testing.assert_close(torch.cat([each for _, _, each in parts], -1), gradient)


def test_a_missing_teacher_is_refused_before_training():
    """The recipe's check names the folder, and what is out of range."""
    with pytest.raises(InputError, match="no folder of an exported model"):
        distill({"teacher": "nowhere"}, "r.toml: compression.distill")
    with pytest.raises(InputError) as caught:
        read(Distill, {"temperature": 0, "weight": 2, "teacher": "t"}, "d")
    assert len(caught.value.faults) == 2
    with pytest.raises(InputError, match="teacher: is missing"):
        read(Distill, {}, "d")
