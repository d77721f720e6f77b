"""The methods of a recipe: [compression.prune], [compression.quantize], [compression.distill], as its loop calls them.

Needs no torch until a training begins, since a recipe is checked before one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from executor.methods.settings import Distill, Prune, Quantize, read
from executor.training.method import Method
from planner.errors import Fault, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from executor.methods.aware import Inputs, Rounded
    from executor.methods.distill import Distillation, Project, Teacher
    from executor.methods.prune import Pruner
    from executor.trainer import Trainer


class Pruning(Method):
    """Magnitude pruning along a schedule."""

    def __init__(self, how: Prune) -> None:
        """As the recipe says."""
        self.how = how
        self._pruner: Pruner | None = None
        self._cut: Tensor | None = None

    def begin(self, trainer: Trainer) -> None:
        """Masks for this rank's pieces, none yet: the weights to cut may still be read."""
        import torch  # noqa: PLC0415

        from executor.methods.prune import Pruner  # noqa: PLC0415
        from executor.methods.targets import chosen  # noqa: PLC0415

        self._pruner = Pruner(chosen(trainer.held), self.how, trainer.meshes.group("pp"))
        self._cut = torch.zeros((), dtype=torch.int64)

    def before_step(self, step: int) -> None:
        """Step 0 is due before the first."""
        if self.how.start == 0 and not self._made().masks:
            self.after_step(0)

    def after_step(self, step: int) -> None:
        """The masks that are due, laid on."""
        pruner = self._made()
        pruner.after_step(step)
        if self._cut is not None:
            self._cut.fill_(int(bool(pruner.masks)))

    def state(self) -> dict[str, Tensor]:
        """Whether anything has been cut yet; the masks themselves are the zeros of the weights."""
        return {} if self._cut is None else {"cut": self._cut}

    def resumed(self) -> None:
        """Masks are the zeros of the weights that were read."""
        self._made().resume(cut=bool(self._cut))

    def finish(self) -> dict[str, Any]:
        """Zeros, counted."""
        return dict(self._made().facts())

    def _made(self) -> Pruner:
        if self._pruner is None:
            raise ValueError("a method begins before its first step")
        return self._pruner


class Aware(Method):
    """Quantization-aware training, or fp8 emulated."""

    def __init__(self, how: Quantize) -> None:
        """As the recipe says."""
        self.how = how
        self._inputs: Inputs | None = None
        self._rounded: Rounded | None = None

    def prepare(self, module: nn.Module) -> None:
        """Hooks on the products of a chunk."""
        from executor.methods.aware import Inputs  # noqa: PLC0415

        self._inputs = self._inputs or Inputs(self.how)
        self._inputs.install(module)

    def begin(self, trainer: Trainer) -> None:
        """The optimizer moves the exact weights."""
        from executor.methods.aware import Rounded  # noqa: PLC0415
        from executor.methods.targets import chosen  # noqa: PLC0415

        rounded = Rounded(chosen(trainer.held), self.how)
        trainer.optimizer.register_step_pre_hook(lambda *_: rounded.give_back())
        self._rounded = rounded

    def before_step(self, step: int) -> None:
        """Round the weights for the pass."""
        if step >= self.how.start and self._rounded is not None:
            self._rounded.lay_on()
            self._active(on=True)

    def after_step(self, step: int) -> None:
        """Between steps, in evaluation too, everything is as it is stored."""
        self._active(on=False)

    def finish(self) -> dict[str, Any]:
        """What was trained for."""
        count = 0 if self._rounded is None else len(self._rounded.targets)
        return {"form": self.how.form, "group": self.how.group, "activations": self.how.activations, "matrices": count}

    def _active(self, *, on: bool) -> None:
        if self._inputs is not None:
            self._inputs.active = on


class Distilling(Method):
    """A teacher beside the recipe's objective, on the same ranks."""

    def __init__(self, how: Distill, where: str) -> None:
        """As the recipe says."""
        self.how, self._where = how, where
        self._project: Project | None = None
        self._objective: Distillation | None = None
        self._teacher: Teacher | None = None
        self._told: dict[str, Any] = {}

    def prepare(self, module: nn.Module) -> None:
        """For hidden states the chunk with the head gets a projection that is trained with it."""
        if self.how.hidden and getattr(module, "head", None) is not None:
            from executor.methods.distill import projection  # noqa: PLC0415

            self._load()
            self._project = projection(module, int(self._told["hidden"]))

    def wrap(self, objective: Any) -> Any:
        """The objective with the teacher."""
        from executor.methods.distill import Distillation  # noqa: PLC0415

        self._load()
        if self._teacher is None:
            raise ValueError("a teacher is loaded first")
        self._objective = Distillation(objective, self._teacher, self.how)
        return self._objective

    def begin(self, trainer: Trainer) -> None:
        """The teacher must answer in the student's terms."""
        from executor.model_file import answers  # noqa: PLC0415

        faults = []
        if answers(trainer.model) != self._told["answers"]:
            expected = f"the teacher tells {self._told['answers']} tokens or classes apart, the student"
            faults.append(Fault(f"{self._where}: teacher", f"{expected} {answers(trainer.model)}"))
        if self.how.hidden and trainer.degrees.tp > 1:
            faults.append(
                Fault(f"{self._where}: hidden", "hidden states are compared with tp = 1", int(trainer.degrees.tp))
            )
        if faults:
            raise InputError(*faults)
        if self._objective is not None:
            self._objective.project = self._project

    def finish(self) -> dict[str, Any]:
        """Who taught."""
        return {"teacher": self._told, "temperature": self.how.temperature, "weight": self.how.weight}

    def _load(self) -> None:
        if self._teacher is not None:
            return
        from executor.exported import load  # noqa: PLC0415
        from executor.methods.distill import Here  # noqa: PLC0415
        from executor.model_file import answers  # noqa: PLC0415

        found = load(self.how.teacher, codes=False)
        self._teacher = Here(found.module, hidden=self.how.hidden > 0.0)
        model, parameters = found.model, found.manifest["parameters"]
        self._told = {"name": model.name, "parameters": parameters, "answers": answers(model), "hidden": model.hidden}


def prune(table: Mapping[str, Any], where: str) -> Method:
    """The factory of [compression.prune]."""
    return Pruning(read(Prune, table, where))


def quantize(table: Mapping[str, Any], where: str) -> Method:
    """The factory of [compression.quantize]."""
    return Aware(read(Quantize, table, where))


def distill(table: Mapping[str, Any], where: str) -> Method:
    """The factory of [compression.distill]; the teacher's folder must be there."""
    how = read(Distill, table, where)
    if not (how.teacher / "manifest.json").is_file():
        raise InputError(Fault(f"{where}: teacher", "is no folder of an exported model", str(how.teacher)))
    return Distilling(how, where)
