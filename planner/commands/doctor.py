"""`plan doctor`: what is installed, found and missing on this machine."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata, util

import click

from planner.commands.output import Sheet, emit, format_options
from planner.provenance import SCHEMA_VERSION, tool_version

PACKAGES = {
    "numpy": "the planner's arithmetic",
    "networkx": "checks of the network graphs",
    "scipy": "fits",
    "click": "the command line",
    "rich": "tables",
    "PyYAML": "published runs",
    "plotly": "reports and charts",
    "torch": "the executor (pip install 'myriad-planner[executor]')",
}
PROGRAMS = {
    "chromium": "rendering reports in the tests",
    "nvidia-smi": "NVIDIA GPUs",
    "torchrun": "runs on many machines",
}


@click.command()
@format_options
def command(form: str, quiet: bool) -> None:  # noqa: FBT001
    """Say what is installed, found and missing here."""
    rows: list[dict[str, str | None]] = [
        {"name": "plan", "found": tool_version(), "for": "this tool"},
        {"name": "python", "found": platform.python_version(), "for": "everything"},
        {"name": "cores", "found": str(os.cpu_count()), "for": "search speed"},
        *({"name": name, "found": _version(name), "for": use} for name, use in PACKAGES.items()),
        *({"name": name, "found": shutil.which(name), "for": use} for name, use in PROGRAMS.items()),
    ]
    sheet = [(str(r["name"]), str(r["found"] or "missing"), str(r["for"])) for r in rows]
    emit(
        form,
        {"schema_version": SCHEMA_VERSION, "found": rows},
        lambda: [Sheet("Here", ("what", "found", "for"), sheet)],
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "found" if util.find_spec(name.lower()) else None
