"""What a recipe says of each method, checked: tables below [compression]. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from planner.compression.quantize import GROUP
from planner.errors import Fault, InputError, nearest

PATTERNS = ("unstructured", "2:4")
SCOPES = ("global", "matrix")
AWARE = ("int8", "int4", "fp8")
HALF = 0.5


@dataclass(frozen=True)
class Prune:
    """`pattern` unstructured or 2:4. `sparsity` (share of zeros) is reached from step `start` to `stop` by Zhu &
    Gupta's cubic schedule, masks anew `every` so many steps; without a later `stop`, and as 2:4, all is cut at `start`
    (0: before the first step). `scope`: one threshold for all matrices (global) or one each (matrix). After the last
    cut the masks stay and the rest is fine-tuned.
    """

    pattern: str = "unstructured"
    sparsity: float = HALF
    scope: str = "global"
    start: int = 1
    stop: int = 0
    every: int = 1
    CHOICES: ClassVar = {"pattern": PATTERNS, "scope": SCOPES}

    def faults(self, where: str) -> list[Fault]:
        """What is out of range."""
        found = []
        if not 0.0 <= self.sparsity < 1.0:
            found.append(Fault(f"{where}: sparsity", "expected a share of 0 or more and less than 1", self.sparsity))
        elif self.pattern == "2:4" and self.sparsity != HALF:
            found.append(Fault(f"{where}: sparsity", "2:4 leaves two of four, so it is 0.5", self.sparsity))
        if self.pattern == "2:4" and self.stop > self.start:
            found.append(Fault(f"{where}: stop", "2:4 is cut once, at start; leave it out", self.stop))
        if self.start < 0:
            found.append(Fault(f"{where}: start", "expected a step of 0 (before the first) or more", self.start))
        if self.every < 1:
            found.append(Fault(f"{where}: every", "expected at least 1 step", self.every))
        return found

    def due(self, step: int) -> bool:
        """Whether masks are made anew after `step`."""
        if step <= self.start or step >= max(self.stop, self.start):
            return step == self.start or step == max(self.stop, self.start)
        return (step - self.start) % self.every == 0

    def at(self, step: int) -> float:
        """The sparsity due after `step`: s (1 - (1 - t)³), t the share of the ramp (arXiv:1710.01878, eq. 1)."""
        if step < self.start:
            return 0.0
        if self.stop <= self.start:
            return self.sparsity
        left = 1.0 - min((step - self.start) / (self.stop - self.start), 1.0)
        return self.sparsity * (1.0 - left**3)


@dataclass(frozen=True)
class Quantize:
    """Trained for: `form` int8, int4 (weights in groups of `group` inputs) or fp8; from step `start` on.

    int8 and int4 are quantization-aware training (`activations`: inputs of the products too, int8 a token); fp8 casts
    weights and inputs to e4m3 and gradients to e5m2.
    """

    form: str = "int8"
    group: int = GROUP
    activations: bool = False
    start: int = 1
    CHOICES: ClassVar = {"form": AWARE}

    def faults(self, where: str) -> list[Fault]:
        """What is out of range."""
        found = []
        if self.group < 2 or self.group % 2:
            found.append(Fault(f"{where}: group", "expected an even number of inputs", self.group))
        if self.start < 1:
            found.append(Fault(f"{where}: start", "expected a step of 1 or more", self.start))
        return found


@dataclass(frozen=True)
class Distill:
    """`teacher` is the folder of an exported model; the loss (1 - weight) · own + weight · T² · KL at `temperature` T.

    `hidden` is the weight of the mean squared difference of hidden states behind a trained projection, 0 for none.
    """

    teacher: Path
    temperature: float = 2.0
    weight: float = HALF
    hidden: float = 0.0
    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {}

    def faults(self, where: str) -> list[Fault]:
        """What is out of range."""
        found = []
        if self.temperature <= 0.0:
            found.append(Fault(f"{where}: temperature", "expected more than 0", self.temperature))
        if not 0.0 <= self.weight <= 1.0:
            found.append(Fault(f"{where}: weight", "expected a share from 0 to 1", self.weight))
        if self.hidden < 0.0:
            found.append(Fault(f"{where}: hidden", "expected 0 or more", self.hidden))
        return found


Settings = TypeVar("Settings", Prune, Quantize, Distill)


def read(kind: type[Settings], table: Mapping[str, Any], where: str) -> Settings:
    """The settings of a recipe's table; InputError with all faults."""
    known = {field.name: field for field in fields(kind)}
    wrong = [
        Fault(f"{where}: {key}", f"expected one of {', '.join(known)}", nearest=nearest(key, known))
        for key in table
        if key not in known
    ]
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name not in table:
            wrong += [Fault(f"{where}: {name}", "is missing")] if field.default is MISSING else []
            continue
        value, fault = _value(str(field.type), table[name], kind.CHOICES.get(name))
        if fault:
            close = nearest(value, kind.CHOICES[name]) if name in kind.CHOICES and isinstance(value, str) else None
            wrong.append(Fault(f"{where}: {name}", fault, value, close))
        values[name] = value
    if wrong:
        raise InputError(*wrong)
    made = kind(**values)
    found = made.faults(where)
    if found:
        raise InputError(*found)
    return made


def _value(kind: str, value: Any, choices: tuple[str, ...] | None) -> tuple[Any, str]:
    """The value as its field wants it, and what is wrong with it."""
    if choices is not None:
        return value, "" if value in choices else f"expected one of {', '.join(choices)}"
    if kind == "bool":
        return value, "" if isinstance(value, bool) else "expected true or false"
    if kind == "Path":
        return (Path(value), "") if isinstance(value, str) and value else (value, "expected the folder of a model")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value, "expected a number"
    if kind == "int":
        return (int(value), "") if int(value) == value else (value, "expected a whole number")
    return float(value), ""
