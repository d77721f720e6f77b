"""What the planner can price and the executor can't run: said before anything is built."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from executor.optimizers.settings import NAMES
from planner.divisibility import convolutional, whole_sequences
from planner.errors import Fault, InputError
from planner.layers.base import Cut, Vector
from planner.model import Model
from planner.strategy import Choices, Degrees

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Types of the matrix multiplies; weights, gradients and optimizer states are fp32."""


def refuse(model: Model, degrees: Degrees, choices: Choices) -> None:
    """Raise InputError with every reason why this strategy can't be run."""
    found = list(_reasons(model, degrees, choices))
    if found:
        raise InputError(*found)


def _reasons(model: Model, degrees: Degrees, choices: Choices) -> Iterator[Fault]:
    if choices.precision not in DTYPES:
        yield Fault("precision", f"the executor computes in {' or '.join(DTYPES)}", choices.precision)
    if choices.optimizer not in NAMES:
        yield Fault("optimizer", f"the executor has {', '.join(NAMES)}", choices.optimizer)
    tp, cp = int(degrees.tp), int(degrees.cp)
    if convolutional(model) and tp > 1:
        yield Fault("tp", f"must be 1: the convolutions of {model.name} are not cut", tp)
    if whole_sequences(model) and cp > 1:
        yield Fault("cp", f"must be 1: {model.name} works on whole sequences, which cp would cut", cp)
    if model.vocab % tp:
        yield Fault("tp", f"must divide the vocabulary of {model.vocab} to be run (the planner pads it)", tp)
    parts = [part for kind in model.kinds for part in kind.parts]
    wide = any(isinstance(part, Vector) and part.name == "qk_gain" and part.cut is Cut.COLUMN for part in parts)
    if wide and model.kv_heads % tp:
        yield Fault("tp", f"must divide the {model.kv_heads} key-value heads, whose norm goes over all of them", tp)
