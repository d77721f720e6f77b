"""`plan simulate`: a step of a plan replayed event by event, beside the closed form."""

from __future__ import annotations

from pathlib import Path

import click

from hwprofiles.quantity import format as human
from planner.commands.output import Sheet, emit, format_options, talk, to_json
from planner.files import write
from planner.plan import provenance, read
from planner.provenance import SCHEMA_VERSION, tool_version
from planner.simulate.step import simulate
from planner.simulate.trace import trace


@click.command()
@click.argument("plan_file", metavar="PLAN.json", type=click.Path(path_type=Path))
@click.option("--trace", "trace_file", type=click.Path(path_type=Path, dir_okay=False), help="Perfetto trace to write.")
@format_options
def command(plan_file: Path, trace_file: Path | None, form: str, quiet: bool) -> None:  # noqa: FBT001
    """Replay one step of PLAN.json with the true work of each stage, and compare with the closed form."""
    plan = read(plan_file)
    found = simulate(plan)
    timeline, closed = found.timeline, found.closed_form
    data = {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "origin": "simulated",
        "pipeline_s": timeline.makespan,
        "closed_form_s": closed,
        "busy_s": list(timeline.busy),
        "idle_s": list(timeline.idle),
        "in_flight": list(timeline.in_flight),
        "provenance": provenance(plan),
    }
    rows = [
        (str(rank), human(busy, "s"), human(idle, "s"), f"{held:.2f}")
        for rank, (busy, idle, held) in enumerate(zip(timeline.busy, timeline.idle, timeline.in_flight, strict=True))
    ]
    line = f"pipeline part of the step: replay {human(timeline.makespan, 's')}, closed form {human(closed, 's')}"
    if trace_file:
        write(trace_file, to_json(trace(timeline)))
        talk(f"wrote {trace_file}; open it at ui.perfetto.dev", quiet=quiet)
    emit(form, data, lambda: [Sheet("Stages", ("stage", "busy", "idle", "micro-batches held"), rows, (line,))])
