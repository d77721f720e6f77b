"""A recipe's training on one rank: the loop of `executor.train` with data, evaluations, methods and what they tell."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist

from executor import memory
from executor.checkpoint import Checkpoints
from executor.data import Order, Split, load
from executor.job import Report
from executor.phases import events
from executor.saved import found
from executor.signals import Stop, stopping
from executor.train import Run, telling
from executor.training.averages import Averages
from executor.training.board import Board
from executor.training.build import trainer_of
from executor.training.evaluate import evaluate
from executor.training.job import TrainingJob, TrainingReport
from executor.training.method import methods
from executor.training.rates import Rates
from executor.training.recipe import Recipe
from executor.training.scores import Scores
from executor.training.stopping import Patience
from executor.training.weights import BEST, load_final, save_final, tidy

Json = dict[str, Any]


def train(job: TrainingJob) -> Report:
    """Do this rank's part of a recipe's training; a RankError tells what went wrong."""
    with stopping() as stop:
        return telling(Training(job, stop))


class Training(Run):
    """One rank of a recipe's training."""

    rate = "optimizer.learning_rate"

    def __init__(self, job: TrainingJob, stop: Stop) -> None:
        """Nothing is built yet."""
        super().__init__(job, stop)
        if job.recipe is None:
            raise ValueError("a training needs a recipe")
        self.recipe: Recipe = job.recipe
        self.out, self.start, self.old = job.out, job.start, job.old
        self.curve: list[Json] = []
        self.evaluations: list[Json] = []
        self.first_values: list[str] = []
        self.before: Json = {}

    def _build(self) -> None:
        recipe, job = self.recipe, self.job
        if self.out and dist.get_rank() == 0:
            tidy(self.out, job.resume)
        self.data = load(recipe.data, job.seed)
        self.order = Order(len(self.data.train), job.seed)
        self.methods = methods(recipe.compression, f"{recipe.where}: compression")
        self.trainer = trainer_of(recipe, job.plan, self.data, self.methods, self.device.kind)
        regular = recipe.regularisation
        self.averages = Averages(self.trainer.held, regular.ema) if regular.ema else None
        self.rates = Rates(self.trainer.optimizer, recipe.schedule, job.steps)
        self.patience = Patience(regular.metric, regular.patience) if regular.patience else None
        self.best = Checkpoints(self.out / BEST, 1, job.timeout) if self.patience and self.out else None
        self.board = Board(self.out if dist.get_rank() == 0 else None)

    @property
    def fingerprint(self) -> str:
        """Hash of the data."""
        return self.data.fingerprint

    def _batch(self, start: int, stop: int) -> Any:
        return [torch.from_numpy(each) for each in self.data.train.take(self.order.numbers(start, stop))]

    def _resume(self) -> tuple[int, int]:
        """From a checkpoint of this training; else from the weights of an earlier one, if any."""
        if self.job.resume is None and self.start is not None:
            self.first_values = load_final(self.trainer, self.start)
            if self.averages:
                self.averages.restart()
            for method in self.methods:
                method.resumed()
            self.before = self._forgetting()
        return super()._resume()

    def _state(self) -> Json:
        found = super()._state() | (self.averages.state() if self.averages else {})
        for name, method in zip(self.recipe.compression, self.methods, strict=True):
            found |= {f"method.{name}.{key}": value for key, value in method.state().items()}
        return found

    def _resumed(self, state: Json, manifest: Json) -> None:
        super()._resumed(state, manifest)
        story = manifest["training"]
        self.curve, self.evaluations = list(story["curve"]), list(story["evaluations"])
        self.first_values, self.before = story["first_values"], story["before"]
        self.rates.resume(manifest["step"], story["rates"])
        if self.patience:
            self.patience.resume(story["patience"])
        for method in self.methods:
            method.resumed()

    def _manifest(self) -> Json:
        story = {
            "curve": list(self.curve),  # written while the next step adds to its own
            "evaluations": list(self.evaluations),
            "first_values": self.first_values,
            "before": self.before,
            "rates": self.rates.state(),
            "patience": self.patience.state() if self.patience else None,
        }
        return {"training": story}

    def _one(self, drawn: int) -> float:
        for method in self.methods:
            method.before_step(self.step)
        rate = self.rates.rate
        start = super()._one(drawn)
        done = self.steps[-1]
        row = {"step": self.step, "loss": done.loss, "learning_rate": rate, "gradient_norm": self.trainer.norm}
        self.curve.append({**row, "wall_s": done.wall})
        self.board.scalars("train", self.step, row)
        return start

    def _after(self) -> bool:
        for method in self.methods:
            method.after_step(self.step)
        if self.averages:
            self.averages.update()
        self.rates.step()
        every = self.recipe.evaluation.every
        if not every or self.step % every or not len(self.data.validation):
            return False
        scores = self._scores(self.data.validation).metrics()
        self.evaluations.append({"step": self.step, **self._shown(scores)})
        self.board.scalars("validation", self.step, self._shown(scores))
        self.rates.observe(scores["loss"])
        if self.patience and self.patience.better(self.step, scores[self.patience.metric]) and self.best:
            self.best.save(self.step, self._state(), {**self.job.manifest, **self._manifest()})
            self.best.finish()
        return self.patience is not None and self.patience.over

    def _shown(self, scores: dict[str, float]) -> dict[str, float]:
        """The metrics that the recipe asks for, and the one that stops it."""
        names = {*self.recipe.evaluation.metrics, *([self.patience.metric] if self.patience else [])}
        return {name: value for name, value in scores.items() if name in names}

    def _scores(self, split: Split) -> Scores:
        """What the model (its averages, where there are any) says to a split."""
        batch = self.job.plan.setting.workload.global_batch
        with self._averaged():
            return evaluate(self.trainer, split, batch, self.recipe.evaluation.samples, len(self.data.classes))

    def _averaged(self) -> AbstractContextManager[None]:
        return self.averages.swapped() if self.averages else nullcontext()

    def _forgetting(self) -> Json:
        """How good the model is on the data that the weights it started from were trained on."""
        if self.old is None:
            return {}
        old = load(self.old.data, self.old.run.seed)
        if old.objective != self.data.objective or old.classes != self.data.classes or not len(old.validation):
            return {}
        return self._scores(old.validation).metrics()

    def _told(self, start: float, *, stopped: bool) -> TrainingReport:
        story: Json = {"curve": self.curve, "evaluations": self.evaluations}
        if not stopped:
            story |= self._finished()
        self.board.close()
        return TrainingReport(
            rank=dist.get_rank(),
            steps=tuple(self.steps),
            events=tuple(events(dist.get_rank(), self.recorder.spans, start)),
            peak=memory.peak(torch, self.device.kind),
            held_out_loss=None,
            stopped=stopped,
            story=story,
        )

    def _finished(self) -> Json:
        """Back to the best, what methods have left to do, the last evaluations, and the weights on the disk."""
        early = self.patience is not None and self.patience.over and self.step < self.job.steps
        if self.best and self.patience and self.patience.value is not None:
            self._restore(self.best)
        facts = {name: each.finish() for name, each in zip(self.recipe.compression, self.methods, strict=True)}
        final: Json = {}
        for name, split in (("validation", self.data.validation), ("test", self.data.test)):
            if len(split):
                scores = self._scores(split)
                samples = min(self.recipe.evaluation.samples or len(split), len(split))
                final[name] = {"samples": samples, **scores.metrics()}
                if self.data.classes:
                    final[name]["report"] = scores.report(self.data.classes)
        forgetting = {"before": self.before, "after": self._forgetting()} if self.before else None
        if self.out:
            with self._averaged():
                save_final(self.trainer, self.out, self.step, self._own(), self.job.timeout)
        return {
            "stopped_early": early,
            "best": asdict(self.patience) if self.patience else None,
            "final": final,
            "forgetting": forgetting,
            "started_with_first_values": self.first_values,
            "methods": facts,
        }

    def _restore(self, best: Checkpoints) -> None:
        state = self._state()
        kept = next(saved for saved in found(best.folder) if self.patience and saved.step == self.patience.step)
        best.load(kept, state)
        self.trainer.restored(state)
        for method in self.methods:
            method.resumed()

    def _own(self) -> Json:
        """What the final weights say of themselves."""
        data = {
            "objective": self.data.objective,
            "classes": list(self.data.classes),
            "vocabulary": self.data.vocabulary,
        }
        return {**self.job.manifest, "data": data}
