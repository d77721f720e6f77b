"""What `plan train` prints: the recipe before, the training after, a search. Needs no torch."""

from __future__ import annotations

from typing import Any

from executor.data import Dataset
from executor.training.recipe import Recipe
from planner.commands.output import Sheet
from planner.plan import Plan, strategy_json
from planner.provenance import SCHEMA_VERSION, tool_version

Json = dict[str, Any]
AXES = ("tp", "pp", "vpp", "cp", "ep", "etp", "dp")


def described(recipe: Recipe, plan: Plan, data: Dataset) -> Json:
    """What --dry-run shows, as JSON."""
    model = plan.setting.model
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "recipe": dict(recipe.table),
        "model": {"name": model.name, "parameters": model.total_parameters(), "active": model.total_active()},
        "data": {
            "kind": data.kind,
            "objective": data.objective,
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
            **data.facts,
        },
        "strategy": strategy_json(plan.setting, plan.degrees),
    }


def description(recipe: Recipe, plan: Plan, data: Dataset) -> list[Sheet]:
    """The same for people."""
    model, workload = plan.setting.model, plan.setting.workload
    steps = recipe.run.steps
    epochs = steps * workload.global_batch / len(data.train)
    axes = ", ".join(f"{axis} {int(getattr(plan.degrees, axis))}" for axis in AXES)
    rows = [
        ("model", f"{model.name}, {model.total_parameters():,} parameters"),
        (
            "data",
            f"{data.kind}: {len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test",
        ),
        ("objective", data.objective),
        ("steps", f"{steps:,} of {workload.global_batch} samples, {epochs:.2f} epochs"),
        ("optimizer", f"{recipe.optimizer.name}, {recipe.schedule.name} from {recipe.optimizer.learning_rate:g}"),
        ("ranks", f"{int(plan.degrees.world)}: {axes}"),
    ]
    return [Sheet(f"Recipe {recipe.name}", ("", "what"), rows)]


def trained(told: Json) -> list[Sheet]:
    """A training: its evaluations, what it came to, a classification's report."""
    evaluations = told["evaluations"]
    sheets = []
    if evaluations:
        names = [name for name in evaluations[0] if name != "step"]
        rows = [(str(row["step"]), *(f"{row[name]:.4f}" for name in names)) for row in evaluations]
        sheets.append(Sheet("Validation", ("step", *names), rows))
    first, last = told["curve"][0], told["curve"][-1]
    notes = [f"training loss {first['loss']:.4f} in step {first['step']} -> {last['loss']:.4f} in step {last['step']}"]
    if told["stopped"]:
        return [*sheets, Sheet("", (), [], notes)]
    if told["best"]:
        early = "stopped early" if told["stopped_early"] else "all steps done"
        notes.append(
            f"{early}; back to step {told['best']['step']}, {told['best']['metric']} {told['best']['value']:.4f}"
        )
    notes += _forgetting(told["forgetting"])
    final = told["final"]
    shown = {name: [key for key, value in row.items() if isinstance(value, float)] for name, row in final.items()}
    keys = next(iter(shown.values()), [])
    rows = [(name, f"{row['samples']:,}", *(f"{row[key]:.4f}" for key in keys)) for name, row in final.items()]
    sheets.append(Sheet("At the end", ("split", "samples", *keys), rows, notes))
    name = "test" if "test" in final else "validation"
    if final.get(name, {}).get("report"):
        sheets.append(_report(final[name]["report"], name))
    return sheets


def tuned(found: Json) -> list[Sheet]:
    """The trials of a search, the best first."""
    names = list(found["searched"])
    rows = [
        (
            str(trial["number"]),
            *(f"{trial['values'][name]:g}" for name in names),
            str(trial["steps"]),
            "-" if trial["loss"] is None else f"{trial['loss']:.4f}",
        )
        for trial in sorted(found["trials"], key=lambda each: (-each["steps"], each["loss"] or float("inf")))
    ]
    notes = [f"best recipe: {found['best_recipe']}"]
    return [Sheet("Search", ("trial", *names, "steps", "validation loss"), rows, notes)]


def _forgetting(found: Json | None) -> list[str]:
    if not found:
        return []
    changes = (f"{key} {found['before'][key]:.4f} -> {found['after'][key]:.4f}" for key in ("loss", "accuracy"))
    return [f"on the data it was trained on before: {', '.join(changes)}"]


def _report(report: Json, split: str) -> Sheet:
    keys = ("precision", "recall", "f1-score", "support")
    rows = [
        (name, *(f"{row[key]:.0f}" if key == "support" else f"{row[key]:.4f}" for key in keys))
        for name, row in report.items()
        if isinstance(row, dict)
    ]
    return Sheet(f"Report on the {split} split", ("class", *keys), rows)
