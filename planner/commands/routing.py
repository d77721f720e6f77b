"""The option --routing of commands that price plans: experts as a placement for a trace would load them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from planner.commands.options import LARGEST
from planner.errors import Fault, InputError
from planner.placement.base import Grid, Trace
from planner.plan import Plan
from planner.setting import Routing

option = click.option(
    "--routing",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Trace (.npz, .jsonl): price experts by a quick placement for it, not as evenly loaded.",
)


def trace_of(path: Path, plan: Plan) -> Trace:
    """The trace in `path`; InputError when it can't be of the plan's model."""
    from planner.placement.io import read  # noqa: PLC0415  a plan without a trace starts without it

    model = plan.setting.model
    if model.experts == 0:
        raise InputError(Fault("--routing", f"{model.name} has no experts to place", str(path)))
    trace = read(path, model.experts, LARGEST)
    if trace.ids.shape[2] not in {1, model.topk}:
        expected = f"expected {model.topk} experts a token, as {model.name} has, or loads only"
        raise InputError(Fault(f"{path}: ids", expected, trace.ids.shape[2]))
    return trace


def priced(plans: Iterable[Plan], path: Path, trace: Trace) -> list[Plan]:
    """`plans` with the imbalance and the traffic of a placement for `trace`; groups alike are placed once."""
    from planner.place import routed  # noqa: PLC0415

    known: dict[Grid, Routing] = {}
    return [routed(plan, trace, str(path), known) for plan in plans]
