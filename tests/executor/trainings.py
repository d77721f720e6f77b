"""Small recipes, and the shipped ones made small: what the tests of `plan train` share."""

from __future__ import annotations

from pathlib import Path

from executor.training.override import changed
from executor.training.recipe import Recipe, of_table, parse
from executor.training.run import Options, Outcome, train

EXAMPLES = Path(__file__).parents[2] / "examples"
SHIPPED = sorted(path.stem for path in EXAMPLES.glob("*-*.toml"))
TINY = {
    "model": {"layers": 2, "hidden": 16, "heads": 2, "ffn": 32},
    "data": {"kind": "python", "seq_len": 16},
    "optimizer": {"learning_rate": 0.01},
    "batch": {"size": 8},
    "evaluation": {"every": 4, "samples": 32, "metrics": ["loss", "accuracy"]},
    "parallel": {"micro_batch": 2},
    "run": {"steps": 8},
}


def recipe(out: Path | None = None, table=None, **changes: object) -> Recipe:
    """A tiny recipe with keys set by `table__key`, writing to `out`."""
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    if out is not None:
        dotted["run.out"] = str(out)
    return of_table(changed(table or TINY, dotted), Path("tiny.toml"))


def run(made: Recipe, pool, **how: object) -> Outcome:
    """Train it on a pool."""
    return train(Options(made, **how), pool)


def shipped(name: str, out: Path, start: Path | None = None) -> Recipe:
    """A recipe of examples/, a few steps of a narrow model."""
    path = EXAMPLES / f"{name}.toml"
    table = parse(path)
    table.pop("search", None)
    changes = {"run.out": str(out), "run.steps": 4, "evaluation.every": 2, "evaluation.samples": 20, "batch.size": 8}
    changes |= {"parallel.micro_batch": 2, "run.checkpoint_every": 2}
    if "architecture" in table["model"]:
        changes |= {"model.widths": [8, 16], "model.stem": 8}
    else:
        changes |= {"model.hidden": 16, "model.layers": 2, "data.seq_len": 32}
        changes |= {key: 32 for key in ("model.ffn", "model.moe_ffn") if key.split(".")[1] in table["model"]}
    for key in ("warm_up", "decay", "every"):
        if key in table["schedule"]:
            changes[f"schedule.{key}"] = 1
    if start:
        changes["run.start_from"] = str(start)
    return of_table(changed(table, changes), path)


def losses(outcome: Outcome) -> list[float]:
    """The loss of every step that training.json tells."""
    return [row["loss"] for row in outcome.told["curve"]]
