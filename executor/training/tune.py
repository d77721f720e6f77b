"""`plan train --tune`: learning rate, weight decay and batch searched on the recipe's own model by successive halving.

All trials train a short run, the best third of them one three times as long, and so on (Jamieson 2016,
arXiv:1502.07943). Every rung trains anew with a whole schedule of its own length: half of a long cosine would favour
rates that are good at its top. Trials are drawn from a scrambled Halton sequence, evenly in the logarithm. The measure
is the loss on the validation split.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import qmc

from executor import launch
from executor.ranks import Ranks
from executor.training.override import changed
from executor.training.recipe import Recipe, of_table
from executor.training.run import Options, check, train
from executor.training.toml import toml
from planner.errors import Fault, InputError, RunFailed
from planner.files import write
from planner.provenance import SCHEMA_VERSION, tool_version

RATIO = 3  # trials that end at a rung, over those that go on
KEYS = {
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "regularisation.weight_decay",
    "batch": "batch.size",
}
"""What is searched, and where a recipe has it."""
PATHS = ("model.name", "data.path", "data.validation", "data.test", "run.start_from")
Json = dict[str, Any]


def tune(recipe: Recipe, tell: Callable[[str], None] = lambda text: None) -> Json:
    """Search what [search] names; writes `tuning.json` and `best.toml` to the recipe's out and returns the first.

    InputError when there is nothing to search or a value is not legal; RunFailed when every trial failed.
    """
    out = recipe.run.out
    if out is None:
        raise InputError(Fault(f"{recipe.where}: run.out", "is missing: the search writes there"))
    values = drawn(recipe)
    for each in values:  # a batch that the ranks don't divide is told before anything runs
        check(_trial(recipe, each, recipe.run.steps, out / "trials"))
    trials: list[Json] = []
    alive = list(range(len(values)))
    run = recipe.run
    with Ranks(recipe.parallel.ranks, timeout=run.timeout, backend=launch.BACKENDS[run.device]) as pool:
        for steps in rungs(len(values), recipe.search.steps or run.steps):
            tell(f"{len(alive)} trials of {steps} steps")
            rung = [_tried(recipe, number, values[number], steps, out, pool) for number in alive]
            trials += rung
            finished = sorted((trial for trial in rung if trial["loss"] is not None), key=lambda trial: trial["loss"])
            if not finished:
                raise RunFailed(f"no trial of {steps} steps came to an end; search lower learning rates")
            alive = [trial["number"] for trial in finished[: max(len(alive) // RATIO, 1)]]
    best = finished[0]
    path = out / "best.toml"
    write(path, _best(recipe, best["values"], out))
    found: Json = {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "recipe": dict(recipe.table),
        "searched": {name: list(getattr(recipe.search, name)) for name in KEYS if getattr(recipe.search, name)},
        "trials": trials,
        "best": best,
        "best_recipe": str(path),
    }
    write(out / "tuning.json", json.dumps(found, indent=2, ensure_ascii=False, default=str) + "\n")
    return found


def drawn(recipe: Recipe) -> list[Json]:
    """The values of each trial; InputError when nothing is searched or a range is empty."""
    search, where = recipe.search, f"{recipe.where}: search"
    ranges = {name: getattr(search, name) for name in KEYS if getattr(search, name)}
    faults = [
        Fault(f"{where}.{name}", "expected [least, most], the first below the second", list(found))
        for name, found in ranges.items()
        if name != "batch" and found[0] >= found[1]
    ]
    if not ranges:
        faults.append(Fault(where, f"names nothing to search: give {', '.join(KEYS)}, or some of them"))
    if recipe.data.validation == 0.0:
        faults.append(Fault(f"{recipe.where}: data.validation", "is what the search measures on: give it a share"))
    if faults:
        raise InputError(*faults)
    points = qmc.Halton(len(ranges), seed=recipe.run.seed).random(search.trials)
    return [{name: _at(name, ranges[name], place) for name, place in zip(ranges, row, strict=True)} for row in points]


def rungs(trials: int, steps: int) -> list[int]:
    """Steps of each rung: `steps` in the last, a third of the next before it, as many as thirds of the trials go."""
    count = 1 + int(np.log(trials) / np.log(RATIO) + 1e-9)
    return sorted({max(steps // RATIO ** (count - 1 - rung), 1) for rung in range(count)})


def _at(name: str, found: tuple[float, ...], place: float) -> float | int:
    """The value at a place from 0 to 1."""
    if name == "batch":
        return int(found[min(int(place * len(found)), len(found) - 1)])
    value = float(np.exp(np.log(found[0]) + place * (np.log(found[1]) - np.log(found[0]))))
    return float(f"{value:.4g}")


def _trial(recipe: Recipe, values: Json, steps: int, out: Path) -> Recipe:
    """The recipe with a trial's values; its warm-up and decay keep their share of the steps."""
    share = steps / recipe.run.steps
    changes: Json = {KEYS[name]: value for name, value in values.items()}
    changes |= {"run.steps": steps, "run.out": str(out.absolute()), "run.checkpoint_every": 0}
    for key in ("warm_up", "decay", "every"):
        if key in recipe.table.get("schedule", {}):
            changes[f"schedule.{key}"] = max(int(getattr(recipe.schedule, key) * share), 0 if key == "warm_up" else 1)
    return of_table(changed(recipe.table, changes), recipe.path)


def _tried(recipe: Recipe, number: int, values: Json, steps: int, out: Path, pool: Ranks) -> Json:
    """One trial; a run that failed (a rate too high) has no loss."""
    trial = _trial(recipe, values, steps, out / "trials" / f"{number:03d}-{steps}")
    try:
        loss, failure = train(Options(trial), pool).told["final"]["validation"]["loss"], None
    except RunFailed as error:
        loss, failure = None, str(error)
    return {"number": number, "values": values, "steps": steps, "loss": loss, "failure": failure}


def _best(recipe: Recipe, values: Json, out: Path) -> str:
    """The recipe with the best values as TOML; its relative paths start in `out` now."""
    table = changed(recipe.table, {KEYS[name]: value for name, value in values.items()} | {"run.out": "trained"})
    for dotted in PATHS:
        place, key = dotted.split(".")
        value = table.get(place, {}).get(key)
        if isinstance(value, str) and (key != "name" or Path(value).suffix):
            table[place][key] = os.path.relpath(recipe.path.parent / value, out)
    return toml(table)
