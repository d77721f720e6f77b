"""`plan estimate`: one strategy, priced."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from planner.commands import routing
from planner.commands.options import COUNT, Common, inputs
from planner.commands.output import Sheet, emit, format_options, talk, to_json
from planner.commands.sheets import methods_sheets, parts_sheet, plans_sheet, training_line
from planner.explain.document import document
from planner.explain.words import unseen
from planner.files import write
from planner.plan import Json
from planner.schedules import SCHEDULES
from planner.search.run import check_precision
from planner.strategy import ORDERS, RECOMPUTE, Choices, Degrees


@click.command()
@inputs
@click.option("--gpus", type=COUNT, required=True, help="Number of GPUs.")
@click.option("--tp", type=COUNT, default="1", help="Tensor parallelism.")
@click.option("--pp", type=COUNT, default="1", help="Pipeline stages.")
@click.option("--vpp", type=COUNT, default="1", help="Chunks per stage (interleaved schedule).")
@click.option("--cp", type=COUNT, default="1", help="Context parallelism.")
@click.option("--ep", type=COUNT, default="1", help="Expert parallelism.")
@click.option("--etp", type=COUNT, default="1", help="Tensor parallelism of the experts.")
@click.option("--micro-batch", type=COUNT, default="1", help="Sequences per micro-batch.")
@click.option("--replicas", type=COUNT, default="1", help="Copies of the ZeRO shards (hybrid sharding).")
@click.option("--zero", type=click.IntRange(0, 3), default=1, show_default=True, help="ZeRO stage.")
@click.option("--recompute", type=click.Choice(RECOMPUTE), default="none", show_default=True)
@click.option("--schedule", type=click.Choice(list(SCHEDULES)), help="Default: interleaved when vpp > 1, else 1f1b.")
@click.option(
    "--order", type=click.Choice(ORDERS), default=ORDERS[0], show_default=True, help="Rank order, inner first."
)
@click.option("--sequence-parallel/--no-sequence-parallel", default=True, show_default=True)
@routing.option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan as JSON.")
@click.option("--dry-run", is_flag=True, help="Check inputs and rules only.")
@format_options
def command(common: Common, gpus: int, out: Path | None, dry_run: bool, form: str, quiet: bool, **how: Any) -> None:  # noqa: FBT001
    """Price one strategy of MODEL on --gpus GPUs of --cluster."""
    base = common.plan(gpus)
    how["schedule"] = how["schedule"] or ("interleaved" if how["vpp"] > 1 else "1f1b")
    named = {f.name: how[f.name] for f in fields(Choices) if f.name in how}
    degrees = Degrees(gpus, **{f.name: how[f.name] for f in fields(Degrees) if f.name in how})
    choices = replace(base.setting.choices, **named)
    plan = replace(base, setting=replace(base.setting, choices=choices), degrees=degrees)
    check_precision(plan)
    plan.check()
    trace = routing.trace_of(how["routing"], plan) if how["routing"] else None
    if dry_run:
        talk("the strategy is legal", quiet=quiet)
        return
    if trace:
        (plan,) = routing.priced([plan], how["routing"], trace)
    data = document(plan)
    if out:
        write(out, to_json(data))
        talk(f"wrote {out}", quiet=quiet)
    origin = {key: data[key] for key in ("tool_version", "provenance")}
    emit(form, {**data["estimate"], **origin}, lambda: _sheets(data))


def _sheets(data: Json) -> list[Sheet]:
    priced = data["estimate"]
    cluster = data["cluster"]
    line = f"{data['model']['name']} on {cluster['gpus']:,} x {cluster['gpu']} ({cluster['name']})"
    return [
        plans_sheet("Estimate", [priced], (line,)),
        parts_sheet("Step time", priced["time"], "s"),
        parts_sheet("Peak memory, fullest stage", priced["memory"], "iB"),
        *methods_sheets(data),
        Sheet("", (), (), (data["binding"], *unseen(data["estimate"]), training_line(data))),
    ]
