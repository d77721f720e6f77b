"""`plan explain`: every term of a plan with formula, source and share; the waterfall; what matters."""

from __future__ import annotations

from pathlib import Path

import click

from hwprofiles.quantity import format as human
from planner.commands.output import Sheet, emit, format_options
from planner.commands.sheets import PERCENT, methods_sheets, parts_sheet
from planner.explain.document import document
from planner.explain.tree import tree
from planner.plan import Json, read
from planner.provenance import SCHEMA_VERSION


@click.command()
@click.argument("plan_file", metavar="PLAN.json", type=click.Path(path_type=Path))
@click.option("--depth", type=click.IntRange(1, 12), default=3, show_default=True, help="Levels of the formula tree.")
@format_options
def command(plan_file: Path, depth: int, form: str, quiet: bool) -> None:  # noqa: FBT001
    """Explain PLAN.json: formulas with unit, source, value and share; waterfall; binding constraint; sensitivity."""
    plan = read(plan_file)
    data = document(plan)
    formulas = tree(plan)
    shown = ("waterfall", "binding", "sensitivity", "words", "methods", "batch", "stages", "formulas", "estimate")
    wanted = ("tool_version", "provenance", *shown)
    emit(
        form,
        {"schema_version": SCHEMA_VERSION, **{key: data[key] for key in wanted}, "tree": formulas},
        lambda: _sheets(data, formulas, depth),
    )


def _sheets(data: Json, formulas: Json, depth: int) -> list[Sheet]:
    priced = data["estimate"]
    step = priced["step_time_s"]
    falls = [
        (
            row["name"],
            f"{row['value'] / 1e12:,.1f}",
            f"{row['loss'] / 1e12:,.1f}",
            f"{PERCENT * row['loss'] / data['waterfall'][0]['value']:.1f} %",
        )
        for row in data["waterfall"]
    ]
    matters = [
        (row["label"], row["input"], f"{PERCENT * row['minus']:+.2f} %", f"{PERCENT * row['plus']:+.2f} %")
        for row in data["sensitivity"]
    ]
    return [
        Sheet(
            "From peak to achieved", ("", "TFLOP/s left", "lost", "of peak"), falls, (*data["words"], data["binding"])
        ),
        parts_sheet("Step time", priced["time"], "s"),
        parts_sheet("Peak memory, fullest stage", priced["memory"], "iB"),
        *methods_sheets(data),
        Sheet("Change of the step time at -10 % and +10 % of", ("input", "key", "-10 %", "+10 %"), matters),
        Sheet("Formulas", ("formula", "value", "unit", "of step", "source"), _lines(formulas["calls"], depth, step)),
    ]


def _lines(calls: list[Json], depth: int, step: float, level: int = 0) -> list[tuple[str, ...]]:
    """The tree as indented rows, equal siblings once."""
    rows: list[tuple[str, ...]] = []
    for call in calls:
        value = call["value"]
        number = sum(value.values()) if isinstance(value, dict) and _numbers(value) else value
        shown = isinstance(number, int | float)
        share = f"{PERCENT * number / step:.1f} %" if shown and call["unit"] == "s" else ""
        text = _amount(number, call["unit"]) if shown else ""
        row = ("  " * level + call["name"], text, call["unit"], share, call["source"])
        if row not in rows:
            rows.append(row)
            if level + 1 < depth:
                rows += _lines(call["calls"], depth, step, level + 1)
    return rows


def _numbers(value: Json) -> bool:
    return all(isinstance(item, int | float) for item in value.values())


def _amount(number: float, unit: str) -> str:
    return human(number, unit) if unit in ("s", "B", "FLOP/s") else f"{number:,.4g}"
