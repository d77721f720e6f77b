"""What changes a training from outside its loop: pruning, quantization, distillation.

A recipe names methods as tables below [compression]: `[compression.prune]` finds the factory "prune" in `METHODS`,
which gets that table. One method object lives on each rank for one training. The loop calls, in this order:

    method = factory(table, where)           in the parent too, to check the recipe: quick, and without torch
    method.prepare(module)                   each chunk of this rank, whole and with first values, before it is cut
    objective = method.wrap(objective)       distillation puts its own objective around the recipe's
    method.begin(trainer)                    the trainer is built; no checkpoint is read yet
    method.state()                           tensors kept in checkpoints as `method.NAME.KEY`; they are read in place
    method.resumed()                         after a checkpoint (a resumed one, or the best one) was read
    method.before_step(step); method.after_step(step)     around every optimizer step, steps counted from 1
    method.finish()                          facts for training.json, below "methods"; every rank calls it

Methods are called in the order of their tables. A method may start collectives, since every rank calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from planner.errors import Fault, InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from executor.trainer import Trainer


class Method:
    """One method of one training on this rank; a subclass overrides what it needs, the rest does nothing."""

    def prepare(self, module: nn.Module) -> None:
        """A chunk of the model, whole tensors, before the axes cut it; called once for each chunk of this rank."""

    def wrap(self, objective: Any) -> Any:
        """The objective that is trained in place of `objective` (an `executor.objective.Objective`)."""
        return objective

    def begin(self, trainer: Trainer) -> None:
        """The trainer of this rank; `trainer.held` lists its parameters and the local pieces that may be changed."""

    def before_step(self, step: int) -> None:
        """Optimizer step number `step` (from 1) is about to run."""

    def after_step(self, step: int) -> None:
        """Optimizer step `step` has changed the weights."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep, as tensors (DTensors where sharded) that are read in place."""
        return {}

    def resumed(self) -> None:
        """Weights and `state` have been read from a checkpoint."""

    def finish(self) -> dict[str, Any]:
        """Facts for training.json, plain JSON values."""
        return {}


Factory = Callable[[Mapping[str, Any], str], Method]
"""(the recipe's table, its place for faults) -> a method; InputError with all faults of the table."""
METHODS: dict[str, str] = {
    "prune": "executor.methods.recipe:prune",
    "quantize": "executor.methods.recipe:quantize",
    "distill": "executor.methods.recipe:distill",
}
"""Name of a table below [compression] -> "module:factory"; the module is imported when a recipe has such a table."""


def methods(compression: Mapping[str, Any], where: str) -> list[Method]:
    """The methods of a recipe's [compression] tables, in their order; InputError with the faults of all of them.

    `where` names the table, as in "recipe.toml: compression".
    """
    faults: list[Fault] = []
    found: list[Method] = []
    for name, table in compression.items():
        place = f"{where}.{name}"
        if name not in METHODS:
            known = ", ".join(METHODS)
            faults.append(Fault(place, f"expected one of the methods ({known})", nearest=nearest(name, METHODS)))
        elif not isinstance(table, Mapping):
            faults.append(Fault(place, f"expected a table [compression.{name}]", table))
        else:
            try:
                found.append(factory(name)(table, place))
            except InputError as error:
                faults += error.faults
    if faults:
        raise InputError(*faults)
    return found


def factory(name: str) -> Factory:
    """The factory of a name in `METHODS`."""
    module, attribute = METHODS[name].split(":")
    made: Factory = getattr(import_module(module), attribute)
    return made
