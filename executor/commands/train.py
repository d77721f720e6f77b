"""`plan train`: a training by recipe, here or under torchrun on many machines."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import click

from executor import available, launch
from executor.training import override, tables
from executor.training.recipe import Recipe, of_table, parse
from executor.training.run import Options, Outcome, check, train, train_joined
from planner.commands.options import Count
from planner.commands.output import emit, format_options, out_folder, talk
from planner.errors import Fault, InputError

INTERRUPTED = 130
RANKS = Count(64)
NONE = click.IntRange(min=0)


@click.command()
@click.argument("recipe_file", metavar="RECIPE.toml", type=click.Path(path_type=Path))
@click.option("--ranks", type=RANKS, help="Processes; sets dp to what tp, pp and cp leave. Default: the recipe's.")
@click.option(
    "--set", "settings", multiple=True, metavar="TABLE.KEY=VALUE", help="Set a key of the recipe; repeatable."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for training.json, checkpoints and weights.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --out, on any number of ranks.")
@click.option("--max-restarts", type=NONE, default=0, show_default=True, help="Failures to recover from alone.")
@click.option("--tune", is_flag=True, help="Search what [search] names, and write the best recipe to --out.")
@click.option("--dry-run", is_flag=True, help="Check and show the recipe, and train nothing.")
@format_options
def command(recipe_file: Path, form: str, quiet: bool, **how: Any) -> int:  # noqa: FBT001
    """Train as RECIPE.toml says: data, model, optimizer, regularisation, compression, evaluation, parallel axes.

    On many machines: torchrun --nnodes N --nproc-per-node R ... -m executor.commands.train RECIPE.toml --out FOLDER
    """
    recipe = _recipe(recipe_file, how)
    if how["dry_run"]:
        plan, data = check(recipe)
        emit(form, tables.described(recipe, plan, data), lambda: tables.description(recipe, plan, data))
        return 0
    if not available():
        raise InputError(Fault("torch", "is not installed: pip install 'myriad-planner[executor]'"))
    if how["tune"]:
        return _tune(recipe, form, quiet=quiet)
    progress = not quiet and sys.stderr.isatty()
    options = Options(recipe, resume=how["resume"], restarts=how["max_restarts"], progress=progress)
    outcome = train(options) if launch.world() is None else train_joined(options)
    if outcome is None:
        return 0
    emit(form, outcome.told, lambda: tables.trained(outcome.told))
    return _ended(outcome, recipe, quiet=quiet)


def _recipe(path: Path, how: dict[str, Any]) -> Recipe:
    """The recipe with what the command line sets, and options that can't go together refused."""
    table = override.changed(parse(path), override.parsed(how["settings"]))
    out, world = out_folder(how["out"]), launch.world()
    if out is not None:
        table = override.changed(table, {"run.out": str(out.absolute())})
    ranks = world if world is not None else how["ranks"]
    recipe = of_table(override.on_ranks(table, ranks) if ranks else table, path)
    wrong = []
    if (how["resume"] or how["tune"]) and recipe.run.out is None:
        wrong.append(Fault("--tune" if how["tune"] else "--resume", "needs --out DIR, or out in [run]"))
    if how["tune"] and world is not None:
        wrong.append(Fault("--tune", "starts its own ranks: run it without torchrun"))
    if how["max_restarts"] and world is not None:
        wrong.append(Fault("--max-restarts", "is torchrun's to do: give it to torchrun"))
    if wrong:
        raise InputError(*wrong)
    return recipe


def _tune(recipe: Recipe, form: str, *, quiet: bool) -> int:
    """Search, and tell."""
    from executor.training.tune import tune  # noqa: PLC0415  needs optuna

    found = tune(recipe, tell=lambda text: talk(text, quiet=quiet))
    emit(form, found, lambda: tables.tuned(found))
    return 0


def _ended(outcome: Outcome, recipe: Recipe, *, quiet: bool) -> int:
    """The exit code."""
    out = recipe.run.out
    if outcome.stopped:
        saved = "; what is done is saved: go on with --resume" if out else ""
        talk(f"stopped by a signal after step {len(outcome.told['curve'])}{saved}", quiet=quiet)
        return INTERRUPTED
    if out:
        talk(f"wrote training.json and the weights to {out}", quiet=quiet)
    return 0


if __name__ == "__main__":
    from planner.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(["train", *sys.argv[1:]]))
