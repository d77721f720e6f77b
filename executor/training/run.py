"""`plan train`: a recipe's training on children of this process or on torchrun's ranks, told as training.json.

In the recipe's out: `recipe.json` (the tables as they were run), `training.json`, `checkpoints/`, `best/` (early
stopping), `final/` (the trained weights), `tensorboard/` where it is installed, `failure.txt` when ranks failed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from executor import launch
from executor.data import Dataset, load
from executor.job import Report
from executor.ranks import Ranks
from executor.recovery import is_ours, newest, persist, together
from executor.saved import Saved, found
from executor.training.job import TrainingJob, TrainingReport
from executor.training.plan import plan_of
from executor.training.recipe import Recipe, of_table
from executor.training.sections import Optimizer
from planner.errors import Fault, InputError
from planner.files import write
from planner.plan import Plan, provenance, strategy_json
from planner.provenance import SCHEMA_VERSION, tool_version

CHECKPOINTS, FINAL = "checkpoints", "final"
TOLD = "training.json"
Json = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How to run a recipe: go on (`resume`), again after `restarts` failures, with `progress` on stderr."""

    recipe: Recipe
    resume: bool = False
    restarts: int = 0
    progress: bool = False

    @property
    def out(self) -> Path | None:
        """Where everything is written."""
        return self.recipe.run.out

    @property
    def folder(self) -> Path | None:
        """Where checkpoints are."""
        return self.out / CHECKPOINTS if self.out else None

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.recipe.run.steps

    @property
    def seed(self) -> int:
        """Of weights and data."""
        return self.recipe.run.seed


@dataclass(frozen=True)
class Outcome:
    """What training.json holds, and whether the training was asked to stop before its end."""

    told: Json
    stopped: bool


def train(options: Options, pool: Ranks | None = None) -> Outcome:
    """Run on children of this process, those of `pool` if given; RunFailed when a rank failed."""
    job = job_of(options)
    ranks = options.recipe.parallel.ranks
    own = pool or Ranks(ranks, timeout=job.timeout, backend=launch.BACKENDS[job.device])
    try:
        job, reports = persist(job, options, own, ranks, options.restarts)
    finally:
        if pool is None:
            own.close()
    return _outcome(job, reports)


def train_joined(options: Options) -> Outcome | None:
    """The same on the ranks that torchrun started; the outcome on rank 0, else None."""
    from executor.rendezvous import joined  # noqa: PLC0415  needs torch

    def make() -> TrainingJob:
        return job_of(replace(options, resume=options.resume or is_ours(options)))

    run = options.recipe.run
    with joined(launch.BACKENDS[run.device], run.timeout) as rank:
        job, reports = together(make, options)
    return None if rank else _outcome(job, reports)


def check(recipe: Recipe) -> tuple[Plan, Dataset]:
    """The plan and the data of a recipe; InputError for what can't be read, planned or run here."""
    data = load(recipe.data, recipe.run.seed)
    plan = plan_of(recipe, data)
    wrong = []
    if recipe.regularisation.patience and recipe.run.out is None:
        wrong.append(Fault(f"{recipe.where}: regularisation.patience", "keeps the best weights: set run.out or --out"))
    if recipe.run.checkpoint_every and recipe.run.out is None:
        wrong.append(Fault(f"{recipe.where}: run.checkpoint_every", "needs a folder: set run.out or --out"))
    out, start = recipe.run.out, recipe.run.start_from
    if out and start and out.resolve() == start.resolve():
        wrong.append(
            Fault(f"{recipe.where}: run.start_from", "is this training's own out: name another out", str(start))
        )
    if data.classes and find_spec("sklearn") is None:
        expected = "a classification's report needs scikit-learn: pip install 'myriad-planner[training]'"
        wrong.append(Fault(f"{recipe.where}: data.kind", expected, recipe.data.kind))
    if wrong:
        raise InputError(*wrong)
    return plan, data


def job_of(options: Options) -> TrainingJob:
    """What the ranks are told."""
    from executor.refusal import refuse  # noqa: PLC0415  needs torch

    recipe = options.recipe
    plan, data = check(recipe)
    refuse(plan.setting.model, plan.degrees, plan.setting.choices)
    saved = newest(options)
    if saved:
        _same(saved, recipe, data)
    start, old = _start(recipe)
    if recipe.run.out:
        write(recipe.run.out / "recipe.json", _text({"file": str(recipe.path.absolute()), "recipe": recipe.table}))
    return TrainingJob(
        plan=plan,
        steps=recipe.run.steps,
        seed=recipe.run.seed,
        device=recipe.run.device,
        learning_rate=recipe.optimizer.learning_rate,
        folder=options.folder,
        every=recipe.run.checkpoint_every,
        keep=recipe.run.keep,
        resume=saved,
        manifest={
            "schema_version": SCHEMA_VERSION,
            "run_id": launch.run_id(),
            "strategy": strategy_json(plan.setting, plan.degrees),
            "recipe": {"file": str(recipe.path.absolute()), "table": recipe.table},
        },
        timeout=recipe.run.timeout,
        progress=options.progress,
        recipe=recipe,
        out=recipe.run.out,
        start=start,
        old=old,
    )


def _same(saved: Saved, recipe: Recipe, data: Dataset) -> None:
    """InputError when a checkpoint is of other data, another model or another optimizer than the recipe's."""
    before = saved.manifest["recipe"]["table"]
    wrong = []
    if saved.manifest["corpus"] != data.fingerprint:
        wrong.append(Fault(f"{recipe.where}: data", f"the checkpoint {saved.path} was trained on other data"))
    if before["model"] != json.loads(json.dumps(recipe.table["model"], default=_plain)):
        wrong.append(Fault(f"{recipe.where}: model", f"the checkpoint {saved.path} is of another model"))
    name = before.get("optimizer", {}).get("name", Optimizer.name)
    if name != recipe.optimizer.name:
        expected = f"the checkpoint {saved.path} has the states of {name}"
        wrong.append(Fault(f"{recipe.where}: optimizer.name", expected, recipe.optimizer.name))
    if wrong:
        raise InputError(*wrong)


def _start(recipe: Recipe) -> tuple[Saved | None, Recipe | None]:
    """The weights to start from, and the recipe that trained them where its data can still be read."""
    folder = recipe.run.start_from
    if folder is None:
        return None, None
    there = found(folder / FINAL)
    if not there:
        expected = f"has no {FINAL}/ weights: expected the out folder of a finished `plan train`"
        raise InputError(Fault(f"{recipe.where}: run.start_from", expected, str(folder)))
    kept = there[0].manifest["recipe"]
    try:
        old = of_table(kept["table"], Path(kept["file"]))
        load(old.data, old.run.seed)
    except InputError:
        return there[0], None
    return there[0], old


def _outcome(job: TrainingJob, reports: Sequence[Report]) -> Outcome:
    """training.json, written to out."""
    first = reports[0]
    if not isinstance(first, TrainingReport) or job.recipe is None:
        raise TypeError("a recipe's training reports its story")
    recipe, plan = job.recipe, job.plan
    model = plan.setting.model
    told: Json = {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "recipe": dict(recipe.table),
        "model": {"name": model.name, "parameters": model.total_parameters(), "active": model.total_active()},
        "data": _data(recipe),
        "strategy": strategy_json(plan.setting, plan.degrees),
        "ranks": len(reports),
        "peak_memory_bytes": [report.peak for report in reports],
        "stopped": first.stopped,
        **first.story,
        "provenance": {
            "inputs": provenance(plan),
            "recipe": str(recipe.path),
            "seed": job.seed,
            "device": job.device,
            "resumed_from": job.resume.step if job.resume else None,
            "started_from": str(job.start.path) if job.start else None,
        },
    }
    if job.out:
        write(job.out / TOLD, _text(told))
    return Outcome(told, first.stopped)


def _data(recipe: Recipe) -> Json:
    data = load(recipe.data, recipe.run.seed)
    samples = {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
    return {"kind": data.kind, "objective": data.objective, "sha256": data.fingerprint, **samples, **data.facts}


def _text(value: Json) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: object) -> str:
    """Dates and times, the values of TOML that JSON has not."""
    return str(value)
