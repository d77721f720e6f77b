"""Small models that are no decoders, plans of them, and what a rank measures: data for the tests of families."""

from functools import cache

import torch
from torch.distributed import checkpoint

from executor.check import random_batch
from executor.copies import whole
from executor.objective import Classification
from executor.trainer import Trainer
from planner import residual_network
from planner.model import Model
from planner.residual_network import ResidualNetwork
from planner.shape import Shape, build
from planner.strategy import Choices, Workload
from tests.executor.grid import Row

ENCODER = {
    "family": "test",
    "layers": 4,
    "hidden": 32,
    "heads": 4,
    "ffn": 64,
    "gated": False,
    "norm": "layer",
    "qkv_bias": True,
    "out_bias": True,
    "ffn_bias": True,
    "causal": False,
    "rotary": False,
}
TEXT = ENCODER | {"vocab": 64, "norm_places": "add_norm", "positions": 32, "token_types": 2, "embedding_norm": True}
SHAPES = {
    "masked": Shape("masked", **TEXT, tied=True, predicts="masked"),
    "classifier": Shape("classifier", **TEXT, predicts="classes", classes=5, pooled=True),
    "vit": Shape("vit", **ENCODER, vocab=0, predicts="classes", classes=5, image=12, patch=4, channels=2),
    "resnet": ResidualNetwork("resnet", 16, (8, 12), (2, 1), classes=5, channels=2, stem=8),
    "bottleneck": ResidualNetwork(
        "bottleneck", 8, (16, 24), (1, 2), 5, bottleneck=True, channels=1, stem=8, stem_kernel=3, stem_stride=1,
        stem_pool=False,
    ),
}  # fmt: skip


@cache
def model(name: str) -> Model:
    """The model of a name."""
    shape = SHAPES[name]
    return build(shape) if isinstance(shape, Shape) else residual_network.build(shape)


def workload(name: str) -> Workload:
    """Eight samples a step."""
    return Workload(model(name).sequence or 32, global_batch=8, tokens=1e6)


def batch(name: str, seed: int) -> tuple[torch.Tensor, ...]:
    """A global batch; text is padded and has two types of tokens."""
    found = random_batch(model(name), workload(name), seed)
    if name not in {"masked", "classifier"}:
        return found
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(8, 33, (8, 1), generator=generator)
    there = torch.arange(32) < lengths
    labels = found[1] if name == "classifier" else found[1].masked_fill(~there, -100)
    return found[0], labels, there.long(), (torch.arange(32) * 2 > lengths).long()


def made(row: Row, optimizer: str = "adam") -> Trainer:
    """A trainer of a row."""
    chosen = Choices(**{**vars(row.chosen), "optimizer": optimizer})
    smooth = Classification(5, smoothing=0.1) if row.shape == "classifier" else None
    work = workload(row.shape)
    lr = 1e-3 if optimizer == "adam" else 1e-2
    return Trainer(model(row.shape), row.degrees, chosen, work, lr=lr, options=row.options, objective=smooth)


def mine(trainer: Trainer, name: str, seed: int) -> list[torch.Tensor]:
    """This rank's rows of a global batch."""
    return [each[list(trainer.rows)] for each in batch(name, seed)]


def measured(row: Row) -> tuple[float, dict[str, torch.Tensor]] | None:
    """Loss, whole gradients and running statistics of one step, on rank 0."""
    trainer = made(row)
    loss = trainer.forward_backward(mine(trainer, row.shape, 0))
    gradients = trainer.gradients()
    statistics = {name: value for name, value in trainer.state().items() if "running" in name}
    gradients |= whole(statistics, trainer.meshes.group("pp"))
    return (loss, gradients) if torch.distributed.get_rank() == 0 else None


def curve(row: Row, steps: int) -> tuple[list[float], float, int, list[int]]:
    """Losses of some steps, then loss, count and this rank's answers of an evaluation."""
    trainer = made(row, "sgd" if model(row.shape).kinds[0].takes else "adam")
    losses = [trainer.step(mine(trainer, row.shape, step)) for step in range(steps)]
    found = trainer.evaluate(mine(trainer, row.shape, steps))
    return losses, found.loss, found.count, found.predictions.flatten().tolist()


def saved(row: Row, folder: str) -> tuple[float, int]:
    """Loss and count of an evaluation after three steps, and everything written to `folder`."""
    trainer = made(row)
    for step in range(3):
        trainer.step(mine(trainer, row.shape, step))
    checkpoint.save(trainer.state(), checkpoint_id=folder)
    found = trainer.evaluate(mine(trainer, row.shape, 9))
    return found.loss, found.count


def loaded(row: Row, folder: str) -> tuple[float, int, float]:
    """The same evaluation from what `folder` has, and the loss of a next step."""
    trainer = made(row)
    checkpoint.load(trainer.state(), checkpoint_id=folder)
    found = trainer.evaluate(mine(trainer, row.shape, 9))
    return found.loss, found.count, trainer.step(mine(trainer, row.shape, 10))
