"""`plan report`: a plan as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from planner.commands.output import reports, talk
from planner.explain.document import document
from planner.plan import read


@click.command()
@click.argument("plan_file", metavar="PLAN.json", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default="report.html", show_default=True, help="The page."
)
@click.option("--dry-run", is_flag=True, help="Check the plan and write nothing.")
@click.option("--quiet", is_flag=True, help="No talk on stderr.")
def command(plan_file: Path, out: Path, dry_run: bool, quiet: bool) -> None:  # noqa: FBT001
    """Write PLAN.json as one offline HTML page."""
    data = document(read(plan_file))
    if dry_run:
        talk(f"would write {out}", quiet=quiet)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    reports().write_plan(data, None, out)
    talk(f"wrote {out}", quiet=quiet)
