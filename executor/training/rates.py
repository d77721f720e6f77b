"""The learning rate of every step: torch.optim.lr_scheduler with the factors of a recipe's schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from executor.training.schedule import Schedule


class Rates:
    """Sets the learning rate of `optimizer` for the step to come; `fallen` is a plateau's factor so far."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule, steps: int, done: int = 0) -> None:
        """`steps` of the whole run, `done` of them before."""
        self.optimizer, self.schedule, self.steps = optimizer, schedule, steps
        self._height = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)  # its rate is the plateau's factor
        falls = schedule.factor if schedule.name == "plateau" else 0.5  # never asked of another schedule
        self._plateau = ReduceLROnPlateau(self._height, factor=falls, patience=schedule.patience - 1, threshold=0.0)
        self._base = [group["lr"] for group in optimizer.param_groups]
        self._lambda = self._from(done)

    @property
    def fallen(self) -> float:
        """What plateaus have left of the rate."""
        return float(self._height.param_groups[0]["lr"])

    @property
    def rate(self) -> float:
        """The learning rate of the step to come."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self) -> None:
        """One optimizer step has been done."""
        self._lambda.step()

    def observe(self, loss: float) -> None:
        """An evaluation found this validation loss."""
        if self.schedule.name == "plateau":
            self._plateau.step(loss)
            self._lambda = self._from(self._lambda.last_epoch)

    def state(self) -> dict[str, Any]:
        """What a manifest keeps."""
        return {"best": self._plateau.best, "bad": self._plateau.num_bad_epochs, "fallen": self.fallen}

    def resume(self, done: int, state: dict[str, Any]) -> None:
        """Go on behind `done` steps with a manifest's `state`."""
        self._plateau.best, self._plateau.num_bad_epochs = state["best"], state["bad"]
        self._height.param_groups[0]["lr"] = state["fallen"]
        self._lambda = self._from(done)

    def _from(self, done: int) -> LambdaLR:
        for group, base in zip(self.optimizer.param_groups, self._base, strict=True):
            group["initial_lr"] = base
        return LambdaLR(self.optimizer, lambda index: self.fallen * self.schedule.at(index + 1, self.steps), done - 1)
