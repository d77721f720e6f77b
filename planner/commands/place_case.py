"""What `plan place` is asked: GPUs and experts, from a plan or from options, the traces, and the task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwprofiles import quantity
from planner.errors import Fault, InputError
from planner.place import expert_of, grid_of, rates_of, read_placements, slots_in
from planner.placement.base import Expert, Grid, Rates, Trace
from planner.placement.io import read as read_trace
from planner.placement.scenario import Router, make
from planner.placement.task import Task
from planner.plan import read as read_plan
from planner.provenance import fingerprint

DEFAULT = Rates()
TOKENS, LAYERS = 32_768, 2  # of a scenario
NEEDED = ("experts", "nodes", "gpus_per_node", "hidden", "expert_hidden")
RATES = {"nic": "bytes/s", "nvlink": "bytes/s", "alpha": "seconds", "flops": "flop/s"}

Given = dict[str, Any]  # options by name


@dataclass(frozen=True)
class Case:
    """The group of GPUs and the experts to place on it; `topk` None where only the trace knows it."""

    experts: int
    topk: int | None
    grid: Grid
    rates: Rates
    expert: Expert


def case_of(plan_file: Path | None, given: Given) -> Case:
    """From the plan where there is one, else from the options; InputError when both or neither state something."""
    if plan_file is None:
        return _from_options(given)
    plan = read_plan(plan_file)
    _refuse((*NEEDED, "topk", *RATES), given, "the plan states this; leave the option out")
    model = plan.setting.model
    return Case(model.experts, model.topk, grid_of(plan), rates_of(plan), expert_of(plan))


def traces_of(given: Given, case: Case) -> list[Trace]:
    """The traces of --routing in their order, or that of --scenario; InputError with the faults of every file."""
    groups = given["groups"]
    if case.experts % groups:
        raise InputError(Fault("--groups", f"must divide the {case.experts} experts", groups))
    if not given["routing"]:
        return [_made(given, case)]
    _refuse(("tokens", "layers", "topk", "topk_groups"), given, "is for a --scenario; a trace in --routing has its own")
    traces: list[Trace] = []
    faults: list[Fault] = []
    for path in given["routing"]:
        try:
            traces.append(read_trace(path, case.experts, case.grid.gpus))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(*faults)
    shape = (traces[0].layers, traces[0].ids.shape[0])
    faults = [
        Fault(f"{path}: layers", f"expected those of {given['routing'][0]}", str(trace.layers or trace.ids.shape[0]))
        for path, trace in zip(given["routing"], traces, strict=True)
        if (trace.layers, trace.ids.shape[0]) != shape
    ]
    if faults:
        raise InputError(*faults)
    return traces


def task_of(given: Given, case: Case, layers: int) -> Task:
    """What the portfolio is asked, for traces of so many layers."""
    if given["budget"] is not None and not given["old"] and len(given["routing"]) < 2:
        raise InputError(Fault("--budget", "counts moves from a placement in force; name one with --old"))
    return Task(
        _slots(given, case, layers),
        case.grid,
        case.rates,
        case.expert,
        case.experts,
        given["groups"],
        read_placements(given["old"], case.experts, case.grid, layers) if given["old"] else None,
        given["budget"],
        given["horizon"],
        seed=given["seed"],
        per_batch=given["per_batch"],
    )


def provenance_of(plan_file: Path | None, given: Given) -> list[dict[str, str]]:
    """Name and hash of each input file, or the scenario with its options."""
    files = [("plan", plan_file), *(("routing", path) for path in given["routing"]), ("old", given["old"])]
    rows = [fingerprint(what, str(path), "") for what, path in files if path]
    if given["scenario"]:
        options = {name: given[name] for name in ("tokens", "layers", "topk", "topk_groups", "groups", "seed", *NEEDED)}
        rows.append(fingerprint("scenario", given["scenario"], options))
    return rows


def _from_options(given: Given) -> Case:
    faults = [Fault(_option(name), "is needed without a plan") for name in NEEDED if not given[name]]
    rates = {}
    for name, dimension in RATES.items():
        try:
            rates[name] = quantity.parse(given[name], dimension, _option(name)) if given[name] else None
        except InputError as error:
            faults += error.faults
            continue
        if rates[name] == 0 and name != "alpha":
            faults.append(Fault(_option(name), "expected more than 0", given[name]))
    if faults:
        raise InputError(*faults)
    achieved = Rates(**{name: value for name, value in rates.items() if value is not None})
    grid = Grid(given["nodes"], given["gpus_per_node"])
    return Case(given["experts"], given["topk"], grid, achieved, Expert(given["hidden"], given["expert_hidden"]))


def _made(given: Given, case: Case) -> Trace:
    if not case.topk:
        raise InputError(Fault("--topk", "is needed for a scenario without a plan"))
    router = Router(case.experts, case.topk, given["groups"], given["topk_groups"] or max(given["groups"] // 2, 1))
    layers, tokens = given["layers"] or LAYERS, given["tokens"] or TOKENS
    return make(given["scenario"], router, case.grid, layers, tokens, given["seed"])


def _slots(given: Given, case: Case, layers: int) -> int:
    if given["slots"] and given["memory"]:
        raise InputError(Fault("--memory", "give --slots or --memory, not both"))
    slots, most = given["slots"] or case.experts, case.experts * case.grid.gpus
    where = "--memory" if given["memory"] else "--slots"
    if given["memory"]:
        held = slots_in(quantity.parse(given["memory"], "bytes", "--memory"), case.expert, case.grid, layers)
        slots = min(held, most)
    if slots < case.experts:
        raise InputError(Fault(where, f"expected room for at least the {case.experts} experts", slots))
    if slots > most:
        raise InputError(Fault(where, f"expected at most {most}: each expert on every GPU", slots))
    return slots


def _refuse(names: tuple[str, ...], given: Given, why: str) -> None:
    """InputError when any of these options was given."""
    clash = ", ".join(_option(name) for name in names if given[name])
    if clash:
        raise InputError(Fault(clash, why))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
