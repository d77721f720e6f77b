"""The strategy of a recipe as a planner's plan on this machine, held to the planner's rules. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from executor.data.base import Dataset
from executor.training.recipe import Recipe
from hwprofiles import load
from planner import catalog, stack
from planner.errors import Fault, InputError
from planner.families.table import model_of_table
from planner.layers.base import Linear
from planner.model import Model
from planner.plan import Plan
from planner.rules import broken
from planner.setting import Setting
from planner.strategy import Choices, Degrees, Workload

CLUSTER, STACK = "cpu-loopback", "torch-fsdp"
PREDICTS = {"language-model": "tokens", "masked-language-model": "masked", "classification": "classes"}
"""What a model of the planner predicts, by objective."""
MOST_RANKS = 64  # of the cluster above, which stands for any: nothing here is priced


def plan_of(recipe: Recipe, data: Dataset) -> Plan:
    """The plan that a recipe's tables describe; InputError with every rule that it breaks."""
    model, parallel = model_of(recipe, data), recipe.parallel
    if parallel.ranks > MOST_RANKS:
        raise InputError(Fault(f"{recipe.where}: parallel", f"expected at most {MOST_RANKS} ranks", parallel.ranks))
    seq_len = model.sequence or recipe.data.seq_len
    tokens = float(recipe.run.steps * seq_len * recipe.batch.size)
    degrees = Degrees(
        parallel.ranks,
        tp=parallel.tp,
        pp=parallel.pp,
        vpp=parallel.vpp,
        cp=parallel.cp,
        ep=parallel.ep,
        etp=parallel.etp,
        micro_batch=parallel.micro_batch,
    )
    choices = Choices(
        schedule=parallel.schedule,
        recompute=parallel.recompute,
        zero=parallel.zero,
        precision=parallel.precision,
        sequence_parallel=parallel.sequence_parallel,
        optimizer=recipe.optimizer.name,
    )
    cluster = load.cluster(CLUSTER, parallel.ranks)
    setting = Setting(model, cluster, Workload(seq_len, recipe.batch.size, tokens), choices, stack.load(STACK))
    plan = Plan(recipe.model.name or recipe.name, CLUSTER, setting, degrees)
    faults = [
        Fault(f"{recipe.where}: {each.where}", each.expected, each.value, each.nearest) for each in broken(plan.case)
    ]
    if faults:
        raise InputError(*faults)
    return plan


def model_of(recipe: Recipe, data: Dataset) -> Model:
    """The model of [model], with the vocabulary of the data where the table names none."""
    table, where = recipe.model, f"{recipe.where}: model"
    if table.name is not None:
        model = catalog.load(table.name)
    else:
        made: dict[str, Any] = {"source": f"the recipe {recipe.where}", **table.shape}
        if data.vocabulary:
            made.setdefault("vocab", data.vocabulary)
        if made.get("predicts") == "classes" or made.get("architecture") or made.get("image"):
            made.setdefault("classes", len(data.classes))
        model = model_of_table(made, where, recipe.name)
    faults = list(_misfits(model, data, where))
    if faults:
        raise InputError(*faults)
    return model


def _misfits(model: Model, data: Dataset, where: str) -> Iterator[Fault]:
    """Where the model isn't one for this data."""
    if model.predicts != PREDICTS[data.objective]:
        expected = f'must predict "{PREDICTS[data.objective]}" for the {data.objective} that the data is for'
        yield Fault(f"{where}.predicts", expected, model.predicts)
    elif data.classes and _classes(model) != len(data.classes):
        yield Fault(f"{where}.classes", f"the data has {len(data.classes)} classes", _classes(model))
    if model.vocab < data.vocabulary:
        yield Fault(f"{where}.vocab", f"must have at least the {data.vocabulary} token ids of the data", model.vocab)
    takes = model.embedding.takes
    if not data.vocabulary and takes != data.shape:
        yield Fault(
            f"{where}.image", f"the data's images are {list(data.shape)} (channels, height, width)", list(takes)
        )


def _classes(model: Model) -> int:
    return next(part.outputs for part in model.head.parts if isinstance(part, Linear) and part.name == "output")
