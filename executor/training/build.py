"""From a recipe's tables to what a trainer takes: the objective, the update, and the trainer itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from executor.data import Dataset
from executor.objective import Classification, LanguageModel, MaskedLanguageModel, Objective
from executor.optimizers.settings import Update
from executor.parallel import Options
from executor.parallel.dropout import seed_ranks
from executor.trainer import Trainer
from executor.training.method import Method
from executor.training.recipe import Recipe
from planner.plan import Plan


def objective_of(recipe: Recipe, data: Dataset) -> Objective:
    """What the data is for, with the recipe's label smoothing."""
    smoothing = recipe.regularisation.label_smoothing
    if data.objective == "classification":
        return Classification(len(data.classes), smoothing)
    return MaskedLanguageModel(smoothing) if data.objective == "masked-language-model" else LanguageModel(smoothing)


def update_of(recipe: Recipe) -> Update:
    """One optimizer step, as [optimizer] and [regularisation] say."""
    table, regular = recipe.optimizer, recipe.regularisation
    return Update(
        learning_rate=table.learning_rate,
        weight_decay=regular.weight_decay,
        exclude=regular.exclude,
        betas=table.betas,
        epsilon=table.epsilon,
        momentum=table.momentum,
        nesterov=table.nesterov,
        beta2_decay=table.beta2_decay,
        clip=table.clip,
        master=table.master,
        seed=recipe.run.seed,
    )


def trainer_of(recipe: Recipe, plan: Plan, data: Dataset, methods: Sequence[Method], device: str) -> Trainer:
    """The trainer of this rank, with the recipe's methods in it; every rank must call it."""
    objective = objective_of(recipe, data)
    for method in methods:
        objective = method.wrap(objective)

    def prepare(module: nn.Module) -> None:
        for method in methods:
            method.prepare(module)

    setting = plan.setting
    trainer = Trainer(
        setting.model,
        plan.degrees,
        setting.choices,
        setting.workload,
        device=device,
        seed=recipe.run.seed,
        update=update_of(recipe),
        options=Options(context=recipe.parallel.context, dropout=recipe.regularisation.dropout),
        objective=objective,
        prepare=prepare,
    )
    seed_ranks(recipe.run.seed, trainer.meshes, sequence_parallel=setting.choices.sequence_parallel)
    for method in methods:
        method.begin(trainer)
    return trainer
