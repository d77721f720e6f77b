"""`plan place`: which GPU hosts which expert, and how many replicas of it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from hwprofiles import quantity
from hwprofiles.quantity import format as human
from planner.commands.options import COUNT, Count, Finite
from planner.commands.output import Sheet, emit, format_options, reports, talk, to_json
from planner.errors import Fault, InputError
from planner.files import write
from planner.place import Json, expert_of, grid_of, rates_of, read_placements, slots_in
from planner.place import to_json as placement_json
from planner.placement.base import Expert, Grid, Rates, Trace
from planner.placement.io import read as read_trace
from planner.placement.portfolio import Task, place
from planner.placement.scenario import SCENARIOS, Router, make
from planner.placement.statistics import statistics
from planner.plan import read as read_plan

DEFAULT = Rates()
TOKENS, LAYERS = 32_768, 2  # of a scenario


@dataclass(frozen=True)
class Case:
    """The group of GPUs and the experts to place on it; `topk` None where only the trace knows it."""

    experts: int
    topk: int | None
    grid: Grid
    rates: Rates
    expert: Expert


@click.command()
@click.argument("plan_file", metavar="[PLAN.json]", required=False, type=click.Path(path_type=Path))
@click.option("--routing", type=click.Path(path_type=Path, dir_okay=False), help="Trace (.npz, .jsonl).")
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), help="A made-up trace instead of --routing.")
@click.option("--tokens", type=Count(2**24), help=f"Tokens of the scenario ({TOKENS}).")
@click.option("--layers", type=Count(1024), help=f"Layers of the scenario ({LAYERS}).")
@click.option("--topk", type=COUNT, help="Experts a token of the scenario visits (the plan's).")
@click.option("--topk-groups", type=COUNT, help="Router groups open to a token of the scenario (half of --groups).")
@click.option("--experts", type=COUNT, help="Experts of a layer (the plan's).")
@click.option("--nodes", type=COUNT, help="Nodes of the expert-parallel group (the plan's).")
@click.option("--gpus-per-node", type=COUNT, help="GPUs per node in the group (the plan's).")
@click.option("--slots", type=COUNT, help="Slots for experts on all GPUs; default: one an expert.")
@click.option("--memory", help="Memory per GPU for experts, instead of --slots: '40 GiB'.")
@click.option("--hidden", type=COUNT, help="Hidden size (the plan's).")
@click.option("--expert-hidden", type=COUNT, help="Inner size of an expert (the plan's).")
@click.option("--groups", type=COUNT, default="1", help="Router groups of experts.")
@click.option("--old", type=click.Path(path_type=Path, dir_okay=False), help="The placement in force.")
@click.option("--budget", type=click.IntRange(0), help="Most slots of a layer that may change nodes.")
@click.option("--horizon", type=Finite(1.0), default=1e5, show_default=True, help="Passes that pay a move back.")
@click.option("--per-batch", is_flag=True, help="The dispatcher splits replicas batch by batch.")
@click.option("--nic", help=f"Bandwidth of one NIC (the plan's, else {DEFAULT.nic / 1e9:g} GB/s).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the halves and the search.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write placement.json here.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML page of figures here.")
@click.option("--dry-run", is_flag=True, help="Check the inputs only.")
@format_options
def command(
    plan_file: Path | None,
    out: Path | None,
    report: Path | None,
    dry_run: bool,  # noqa: FBT001
    form: str,
    quiet: bool,  # noqa: FBT001
    **given: Any,
) -> None:
    """Place the experts of each layer of a routing trace on the GPUs of one expert-parallel group.

    Planned on half of the trace's sequences; the metrics are those of the other half.
    """
    began = time.perf_counter()
    if bool(given["routing"]) == bool(given["scenario"]):
        raise click.UsageError("Give a trace with --routing FILE, or make one up with --scenario NAME.")
    case = _from_plan(plan_file, given) if plan_file else _from_options(given)
    trace = _trace(given, case)
    task = _task(given, case, trace)
    if dry_run:
        talk(f"{trace.ids.shape[0]} layers of {trace.tokens:,} tokens; the inputs are sound", quiet=quiet)
        return
    answers = place(trace, task, _progress(quiet=quiet))
    data = placement_json(answers, case.experts, case.grid, round(time.perf_counter() - began, 3))
    if out:
        write(out, to_json({**data, "seconds": None}))
        talk(f"wrote {out}", quiet=quiet)
    if report:
        reports().write_placement({**data, "statistics": statistics(trace, answers, task)}, report)
        talk(f"wrote {report}", quiet=quiet)
    emit(form, data, lambda: [_sheet(data)])


def _from_plan(path: Path, given: dict[str, Any]) -> Case:
    plan = read_plan(path)
    stated = ("experts", "nodes", "gpus_per_node", "hidden", "expert_hidden", "topk", "nic")
    _refuse(stated, given, "the plan states this; leave the option out")
    model = plan.setting.model
    return Case(model.experts, model.topk, grid_of(plan), rates_of(plan), expert_of(plan))


def _from_options(given: dict[str, Any]) -> Case:
    names = ("experts", "nodes", "gpus_per_node", "hidden", "expert_hidden")
    missing = [Fault(_option(name), "is needed without a plan") for name in names if not given[name]]
    if missing:
        raise InputError(*missing)
    rates = Rates(nic=quantity.parse(given["nic"], "bytes/s", "--nic")) if given["nic"] else DEFAULT
    if not rates.nic > 0:
        raise InputError(Fault("--nic", "expected more than 0", given["nic"]))
    grid = Grid(given["nodes"], given["gpus_per_node"])
    return Case(given["experts"], given["topk"], grid, rates, Expert(given["hidden"], given["expert_hidden"]))


def _trace(given: dict[str, Any], case: Case) -> Trace:
    """The trace of --routing or of --scenario."""
    groups = given["groups"]
    if case.experts % groups:
        raise InputError(Fault("--groups", f"must divide the {case.experts} experts", groups))
    if given["routing"]:
        own = ("tokens", "layers", "topk", "topk_groups")
        _refuse(own, given, "is for a --scenario; the trace in --routing has its own")
        return read_trace(given["routing"], case.experts, case.grid.gpus)
    if not case.topk:
        raise InputError(Fault("--topk", "is needed for a scenario without a plan"))
    router = Router(case.experts, case.topk, groups, given["topk_groups"] or max(groups // 2, 1))
    return make(
        given["scenario"], router, case.grid, given["layers"] or LAYERS, given["tokens"] or TOKENS, given["seed"]
    )


def _task(given: dict[str, Any], case: Case, trace: Trace) -> Task:
    layers = trace.ids.shape[0]
    slots = _slots(given, case.experts, case.expert, case.grid, layers)
    if given["budget"] is not None and not given["old"]:
        raise InputError(Fault("--budget", "counts moves from an --old placement; name one"))
    old = read_placements(given["old"], case.experts, case.grid, layers) if given["old"] else None
    return Task(
        slots,
        case.grid,
        case.rates,
        case.expert,
        case.experts,
        given["groups"],
        old,
        given["budget"],
        given["horizon"],
        seed=given["seed"],
        per_batch=given["per_batch"],
    )


def _refuse(names: tuple[str, ...], given: dict[str, Any], why: str) -> None:
    """InputError when any of these options was given."""
    clash = ", ".join(_option(name) for name in names if given[name])
    if clash:
        raise InputError(Fault(clash, why))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _slots(given: dict[str, Any], experts: int, expert: Expert, grid: Grid, layers: int) -> int:
    if given["slots"] and given["memory"]:
        raise InputError(Fault("--memory", "give --slots or --memory, not both"))
    slots = given["slots"] or experts
    if given["memory"]:
        slots = slots_in(quantity.parse(given["memory"], "bytes", "--memory"), expert, grid, layers)
    where = "--memory" if given["memory"] else "--slots"
    if slots < experts:
        raise InputError(Fault(where, f"expected room for at least the {experts} experts", slots))
    if slots > experts * grid.gpus:
        raise InputError(Fault(where, f"expected at most {experts * grid.gpus}: each expert on every GPU", slots))
    return slots


def _progress(*, quiet: bool) -> Any:
    """One line on a terminal's stderr."""
    if quiet or not sys.stderr.isatty():
        return None

    def show(what: str, done: int, of: int) -> None:
        end = "\n" if done + 1 == of else "\r"
        click.echo(f"\r\x1b[K{what}: {done + 1} of {of}", nl=False, err=True)
        if end == "\n":
            click.echo("", err=True)

    return show


def _sheet(data: Json) -> Sheet:
    """Mean over the layers of the placement and of EPLB's policies."""
    rows = [_row("this placement", [layer["metrics"] for layer in data["layers"]])]
    names = sorted({name for layer in data["layers"] for name in layer["baseline"]})
    rows += [_row(name, [layer["baseline"][name] for layer in data["layers"]]) for name in names]
    bounds = [layer["bounds"] for layer in data["layers"]]
    best = ", ".join(
        f"{name} at least {np.mean([bound[key] for bound in bounds]):.3f}"
        for name, key in (("balance", "balance"), ("nodes per token", "nodes_per_token"))
    )
    line = f"{len(data['layers'])} layers, {data['slots']} slots, algorithm {data['algorithm']}; bounds: {best}"
    moved = sum(layer["moved"] for layer in data["layers"])
    between = sum(layer["moved_between_nodes"] for layer in data["layers"])
    notes = (f"{moved} slots change hands, {between} of them between nodes",) if moved else ()
    headers = ("held-out tokens", "balance", "nodes/token", "NIC", "all-to-all", "layer")
    return Sheet("Placement", headers, rows, (line,), notes)


def _row(name: str, metrics: list[Json]) -> tuple[str, ...]:
    mean = {key: float(np.mean([each[key] for each in metrics])) for key in metrics[0]}
    return (
        name,
        f"{mean['balance']:.3f}",
        f"{mean['nodes_per_token']:.2f}",
        human(mean["nic_bytes"], "B"),
        human(mean["all_to_all_s"], "s"),
        human(mean["layer_s"], "s"),
    )
