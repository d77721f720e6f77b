"""`plan place`: which GPU hosts which expert, and how many replicas of it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from hwprofiles.quantity import format as human
from planner.commands.options import COUNT, Count, Finite
from planner.commands.output import Sheet, emit, format_options, progress, reports, talk, to_json
from planner.commands.place_case import DEFAULT, LAYERS, TOKENS, case_of, provenance_of, task_of, traces_of
from planner.files import write
from planner.place import Json, steps_json
from planner.place import to_json as placement_json
from planner.placement.scenario import SCENARIOS
from planner.placement.series import follow
from planner.placement.statistics import statistics

LOADS_ONLY = "one expert a token, as in a load snapshot: balance means something, nodes and traffic don't"


@click.command()
@click.argument("plan_file", metavar="[PLAN.json]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--routing",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Trace (.npz, .jsonl); several in order of time are followed, re-planning when it pays.",
)
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
@click.option("--budget", type=click.IntRange(0), help="Most slots of a layer that may change nodes (a third).")
@click.option("--horizon", type=Finite(1.0), default=1e5, show_default=True, help="Passes that pay a move back.")
@click.option("--per-batch", is_flag=True, help="The dispatcher splits replicas batch by batch.")
@click.option("--nic", help=f"Bandwidth of one NIC (the plan's, else {DEFAULT.nic / 1e9:g} GB/s).")
@click.option("--nvlink", help=f"Bandwidth of a GPU inside its node (the plan's, else {DEFAULT.nvlink / 1e9:g} GB/s).")
@click.option("--alpha", help=f"Start of a dispatch or combine (the plan's, else {DEFAULT.alpha * 1e6:g} us).")
@click.option("--flops", help=f"What a GPU does in expert GEMMs (the plan's, else {DEFAULT.flops / 1e12:g} TFLOP/s).")
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
    case = case_of(plan_file, given)
    traces = traces_of(given, case)
    last = traces[-1]
    task = task_of(given, case, last.ids.shape[0])
    if any(trace.ids.shape[2] == 1 for trace in traces):
        talk(LOADS_ONLY, quiet=quiet)
    if dry_run:
        talk(f"{last.ids.shape[0]} layers of {last.tokens:,} tokens; the inputs are sound", quiet=quiet)
        return
    answers, steps = follow(traces, task, progress(quiet=quiet))
    data = placement_json(answers, case.experts, case.grid, round(time.perf_counter() - began, 3))
    data = {**data, **steps_json(given["routing"][1:], steps), "provenance": provenance_of(plan_file, given)}
    if out:
        write(out, to_json({**data, "seconds": None}))
        talk(f"wrote {out}", quiet=quiet)
    if report:
        in_force = replace(task, old=steps[-1].before) if steps else task
        reports().write_placement({**data, "statistics": statistics(last, answers, in_force)}, report)
        talk(f"wrote {report}", quiet=quiet)
    emit(form, data, lambda: _sheets(data))


def _sheets(data: Json) -> list[Sheet]:
    """The placement, and how it came along a series of traces."""
    if "series" not in data:
        return [_sheet(data)]
    rows = [
        (
            step["routing"],
            human(step["keep_s"], "s"),
            human(step["replan_s"], "s"),
            human(step["move_s"], "s"),
            f"{step['moved']:.1f}",
            f"{step['moved_between_nodes']:.1f}",
            "re-planned" if step["replanned"] else "kept",
        )
        for step in data["series"]
    ]
    headers = ("trace", "layer, kept", "re-planned", "move", "slots moved", "between nodes", "decision")
    return [Sheet("Along the traces, mean of the layers", headers, rows), _sheet(data)]


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
