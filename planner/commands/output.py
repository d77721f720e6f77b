"""How commands speak: data on stdout (table, JSON, CSV, Markdown), talk on stderr, files whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from planner.errors import Fault, InputError

Progress = Callable[[str, int, int], None]
"""Told what is done, how many are, and of how many."""
FORMATS = ("table", "json", "csv", "md")


@dataclass(frozen=True)
class Sheet:
    """A table for people: `rows` of cells under `headers`; `lines` are sentences before it, `notes` after it."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    lines: Sequence[str] = ()
    notes: Sequence[str] = field(default=())


def format_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options --format, --json and --quiet of every command that prints data."""
    function = click.option("--quiet", is_flag=True, help="No talk on stderr.")(function)
    function = click.option("--json", "form", flag_value="json", help="Short for --format json.")(function)
    kinds = click.Choice(FORMATS)
    return click.option("--format", "form", type=kinds, default="table", show_default=True, help="Form of the data.")(
        function
    )


def emit(form: str, data: Any, sheets: Callable[[], Sequence[Sheet]]) -> None:
    """Print `data` as JSON, or the sheets made from it in another form."""
    if form == "json":
        click.echo(to_json(data), nl=False)
        return
    shown = [sheet for sheet in sheets() if form != "csv" or sheet.headers]
    for number, sheet in enumerate(shown):
        if form == "table":
            show(sheet)
        else:
            text = to_csv(sheet) if form == "csv" else to_markdown(sheet)
            click.echo(("\n" if number else "") + text, nl=False)


def to_json(data: Any) -> str:
    """JSON text, two spaces, no NaN."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(sheet: Sheet) -> str:
    """The rows as CSV with a header line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(sheet.headers)
    writer.writerows(sheet.rows)
    return text.getvalue()


def to_markdown(sheet: Sheet) -> str:
    """Title, sentences and a pipe table."""
    bars = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (sheet.headers, *sheet.rows)]
    rule = "|" + "|".join(" --- " for _ in sheet.headers) + "|"
    title = [f"**{sheet.title}**"] if sheet.title else []
    table = ["\n".join([bars[0], rule, *bars[1:]])] if sheet.headers else []
    return "\n\n".join([*title, *sheet.lines, *table, *sheet.notes]) + "\n"


def show(sheet: Sheet) -> None:
    """A table on the terminal; rich decides on colour and honours NO_COLOR."""
    from rich.console import Console  # noqa: PLC0415  JSON output starts without it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    wide = None if sys.stdout.isatty() else 160
    console = Console(width=wide, highlight=False, soft_wrap=not sys.stdout.isatty())
    table = Table(
        title=Text(sheet.title, style="bold"), title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    for number, name in enumerate(sheet.headers):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in sheet.rows:
        table.add_row(*(Text(cell) for cell in row))
    for line in sheet.lines:
        console.print(Text(line))
    if sheet.rows:
        console.print(table)
    for note in sheet.notes:
        console.print(Text(note, style="dim"))
    console.print()


def talk(text: str, *, quiet: bool = False) -> None:
    """A sentence on stderr."""
    if not quiet:
        click.echo(text, err=True)


def progress(*, quiet: bool = False) -> Progress | None:
    """Writes one line on a terminal's stderr over and over; None elsewhere, and where no talk is wanted."""
    if quiet or not sys.stderr.isatty():
        return None

    def show(what: str, done: int, of: int) -> None:
        click.echo(f"\r\x1b[K{what}: {done + 1:,} of {of:,}", nl=done + 1 == of, err=True)

    return show


def out_folder(path: Path | None) -> Path | None:
    """Refuse an --out that is a file or can't be written, before any work is done."""
    if path is None:
        return None
    if path.exists() and not path.is_dir():
        raise InputError(Fault("--out", f"{path} is a file; name a folder"))
    above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not above.is_dir():
        raise InputError(Fault("--out", f"{above} is a file, so {path} can't be a folder"))
    if not os.access(above, os.W_OK):
        raise InputError(Fault("--out", f"{above} may not be written by you; name another folder", str(path)))
    return path


def reports() -> Any:
    """The report writer (`reports.cli`), found by name: the planner stands below it and never imports it."""
    try:
        return import_module("reports.cli")
    except ModuleNotFoundError as error:
        raise InputError(Fault("report", f"needs the package {error.name}: pip install {error.name}")) from None


def cells(values: Iterable[Any]) -> tuple[str, ...]:
    """Values as they stand in a table."""
    return tuple(f"{value:,}" if isinstance(value, int) else str(value) for value in values)
