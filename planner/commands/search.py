"""`plan search`: the best plans of a model on a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from planner.commands import routing
from planner.commands.options import COUNT, Common, Count, Finite, inputs
from planner.commands.output import Sheet, emit, format_options, out_folder, reports, talk, to_csv, to_json
from planner.commands.sheets import methods_sheets, parts_sheet, plans_sheet, training_line
from planner.explain.document import document
from planner.explain.words import unseen
from planner.files import write
from planner.placement.base import Trace
from planner.plan import Json, Plan, strategy_json
from planner.search.run import HEADROOM, OBJECTIVES, Outcome, Query, merged, parse_fix, search_sizes

MOST_PLANS = 1000  # a longer list is read by nobody
RERANKED = 100  # plans that a routing trace may put in another order


@click.command()
@inputs
@click.option("--gpus", required=True, help="Number of GPUs, or several separated by commas.")
@click.option("--objective", type=click.Choice(OBJECTIVES), default="time", show_default=True)
@click.option("--top", type=Count(MOST_PLANS), default="10", show_default=True, help="Plans to print.")
@click.option("--max-micro-batch", type=COUNT, default="8", show_default=True, help="Largest micro-batch to try.")
@click.option("--headroom", type=Finite(0, 0.9), default=HEADROOM, show_default=True, help="Memory left free.")
@click.option("--fix", multiple=True, metavar="AXIS=VALUE", help="Hold an axis or a choice, e.g. tp=8,schedule=1f1b.")
@routing.option
@click.option("--out", type=click.Path(path_type=Path), help="Folder for plan.json, report.html and plans.csv.")
@click.option("--dry-run", is_flag=True, help="Check the inputs and say what would be searched.")
@format_options
def command(common: Common, gpus: str, dry_run: bool, out: Path | None, form: str, quiet: bool, **how: Any) -> None:  # noqa: FBT001
    """Find the best plans of MODEL on --gpus GPUs of --cluster, over the whole legal space."""
    folder = out_folder(out)
    queries = [_query(common.plan(size), how) for size in sizes(gpus)]
    trace = routing.trace_of(how["routing"], queries[0].plan) if how["routing"] else None
    if dry_run:
        talk(f"would search {', '.join(str(q.plan.degrees.world) for q in queries)} GPUs; inputs are good", quiet=quiet)
        return
    outcomes = search_sizes(queries)
    if trace:
        outcomes = _routed(outcomes, how["routing"], trace)
    data = merged(outcomes, how["objective"], how["top"])
    best = _best(outcomes, data)
    plan = document(best)
    if folder:
        _write(folder, data, plan, quiet=quiet)
    emit(form, data, lambda: _sheets(data, plan))


def _routed(outcomes: list[Outcome], path: Path, trace: Trace) -> list[Outcome]:
    """The plans, and those of the frontier, priced with an expert placement for the trace in `path`."""
    return [
        replace(o, plans=routing.priced(o.plans, path, trace), frontier=routing.priced(o.frontier, path, trace))
        for o in outcomes
    ]


def sizes(text: str) -> list[int]:
    """`10240` or `8192,10240` as ints."""
    option = click.Option(["--gpus"])
    return [COUNT.convert(piece, option, None) for piece in text.split(",")]


def _query(plan: Plan, how: Json) -> Query:
    top = max(how["top"], RERANKED) if how["routing"] else how["top"]
    return Query(plan, how["objective"], top, how["max_micro_batch"], how["headroom"], parse_fix(how["fix"]))


def _best(outcomes: list[Outcome], data: Json) -> Plan:
    """The plan behind the first row."""
    wanted = data["plans"][0]["strategy"]
    plans = (plan for outcome in outcomes for plan in outcome.plans)
    return next(plan for plan in plans if strategy_json(plan.setting, plan.degrees) == wanted)


def _sheets(data: Json, plan: Json) -> list[Sheet]:
    rate = data["searched"] / data["seconds"]
    counted = (
        f"{data['searched']:,} candidates checked in {data['seconds']:.1f} s ({rate:,.0f}/s): {data['legal']:,} legal, "
        f"{data['priced']:,} fit in memory; plans by {data['objective']}"
    )
    lines = [
        f"{data['model']['name']} on {plan['cluster']['gpus']:,} x {plan['cluster']['gpu']} ({plan['cluster']['name']})"
    ]
    dropped = "dropped by rule: " + ", ".join(f"{name} {count:,}" for name, count in data["dropped"].items())
    bounds = "bounds: " + "; ".join(data["bounds"])
    best = data["plans"][0]
    return [
        plans_sheet("Plans", data["plans"], lines, (counted, dropped, bounds)),
        parts_sheet("Step time of plan 1", best["time"], "s"),
        parts_sheet("Peak memory of plan 1, fullest stage", best["memory"], "iB"),
        *methods_sheets(plan),
        Sheet("", (), (), (*plan["words"], plan["binding"], *unseen(plan["estimate"]), training_line(plan))),
    ]


def _write(folder: Path, data: Json, plan: Json, *, quiet: bool) -> None:
    """plan.json, plans.csv and report.html; plan.json holds nothing that changes from run to run."""
    page = reports()
    write(folder / "plan.json", to_json(plan))
    write(folder / "plans.csv", to_csv(plans_sheet("Plans", data["plans"])))
    page.write_plan(plan, data, folder / "report.html")
    talk(f"wrote plan.json, plans.csv and report.html to {folder}", quiet=quiet)
