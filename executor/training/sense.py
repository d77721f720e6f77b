"""What the keys of a recipe say together: a key that would do nothing, or that asks for what another key rules out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from executor.optimizers.settings import OPTIONS
from executor.training.schedule import TAKES
from planner.errors import Fault

if TYPE_CHECKING:
    from executor.training.recipe import Recipe

OF_KIND: dict[str, frozenset[str]] = {
    "python": frozenset({"seq_len", "objective"}),
    "passages": frozenset({"seq_len"}),
    "text": frozenset({"path", "seq_len", "pattern", "text", "objective"}),
    "labelled-text": frozenset({"path", "seq_len", "text", "label"}),
    "arrays": frozenset({"path"}),
    "digits": frozenset(),
}
"""Keys of [data] that each kind reads beside `kind`, `validation` and `test`."""
FILES = frozenset({"text", "labelled-text", "arrays"})
CLASSES = frozenset({"passages", "labelled-text", "arrays", "digits"})
BUILT_IN = frozenset({"python", "passages", "digits"})
OF_CLASSES = ("precision", "recall", "f1")


def faults(table: Mapping[str, Any], recipe: Recipe, where: str) -> list[Fault]:
    """Every fault of a recipe whose single values are right; `table` is the file's content."""
    return [*_unread(table, recipe, where), *_data(recipe, where), *_times(recipe, where), *_metrics(recipe, where)]


def _unread(table: Mapping[str, Any], recipe: Recipe, where: str) -> Iterator[Fault]:
    """Keys that were given and that the chosen kind doesn't read."""
    optional = {name for takes in OPTIONS.values() for name in takes}
    for place, chosen, takes, free in (
        ("optimizer", recipe.optimizer.name, OPTIONS[recipe.optimizer.name], optional),
        ("schedule", recipe.schedule.name, TAKES[recipe.schedule.name], {k for ks in TAKES.values() for k in ks}),
        ("data", recipe.data.kind, OF_KIND[recipe.data.kind], {k for ks in OF_KIND.values() for k in ks}),
    ):
        for name in table.get(place, {}):
            if name in free - takes:
                takes_too = f"it takes {', '.join(sorted(takes))}" if takes else "it takes no such keys"
                yield Fault(f"{where}: {place}.{name}", f"{chosen} doesn't read this; {takes_too}")
    if "metric" in table.get("regularisation", {}) and not recipe.regularisation.patience:
        yield Fault(f"{where}: regularisation.metric", "is read for early stopping alone: set patience too")


def _data(recipe: Recipe, where: str) -> Iterator[Fault]:
    data = recipe.data
    if data.kind in FILES and data.path is None:
        yield Fault(f"{where}: data.path", f"is missing: {data.kind} is read from files")
    for name in ("validation", "test"):
        if data.kind in BUILT_IN and not isinstance(getattr(data, name), float):
            yield Fault(f"{where}: data.{name}", f"{data.kind} is built in: expected a share of it")
    if data.objective == "classification" and data.kind not in CLASSES:
        yield Fault(f"{where}: data.objective", f"is of labelled data, and {data.kind} has no labels", data.objective)
    if isinstance(data.validation, float) and isinstance(data.test, float) and data.validation + data.test >= 1.0:
        yield Fault(f"{where}: data", "validation and test leave nothing to train on", data.validation + data.test)


def _times(recipe: Recipe, where: str) -> Iterator[Fault]:
    """Steps that don't fit into the run, and evaluations that something waits for."""
    steps, schedule, every = recipe.run.steps, recipe.schedule, recipe.evaluation.every
    if schedule.warm_up >= steps:
        yield Fault(f"{where}: schedule.warm_up", f"must be below the {steps} steps of the run", schedule.warm_up)
    elif schedule.name == "wsd" and schedule.warm_up + schedule.decay > steps:
        yield Fault(f"{where}: schedule.decay", f"must fit into the {steps} steps behind the warm-up", schedule.decay)
    if schedule.name == "plateau" and schedule.factor == 1.0:
        yield Fault(f"{where}: schedule.factor", "a plateau multiplies by it: expected less than 1", schedule.factor)
    for place, asked in (
        ("regularisation.patience", recipe.regularisation.patience > 0),
        ("schedule.name", schedule.name == "plateau"),
    ):
        if asked and not every:
            yield Fault(f"{where}: {place}", "waits for evaluations: set evaluation.every")
        elif asked and recipe.data.validation == 0.0:
            yield Fault(f"{where}: {place}", "waits for evaluations: set data.validation")


def _metrics(recipe: Recipe, where: str) -> Iterator[Fault]:
    stopping = recipe.regularisation
    if recipe.data.kind not in CLASSES:
        asked = {"evaluation.metrics": recipe.evaluation.metrics, "regularisation.metric": (stopping.metric,)}
        for place, found in asked.items():
            for name in found:
                if name in OF_CLASSES:
                    yield Fault(f"{where}: {place}", "is of a classification, and this data has no labels", name)
    elif "perplexity" in recipe.evaluation.metrics:
        yield Fault(f"{where}: evaluation.metrics", "is of a language model, and this data has labels", "perplexity")
