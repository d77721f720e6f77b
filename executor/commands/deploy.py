"""`plan deploy`: a finished `plan train` written as a folder that predicts, in the form that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hwprofiles.quantity import format as human
from planner.commands.options import Count
from planner.commands.output import Sheet, emit, format_options, out_folder, reports, talk
from planner.errors import Fault, InputError

FORMS = ("fp32", "bf16", "fp8", "int8", "int4", "2:4", "sparse", "int8-dynamic")
MOST_EXPERTS = 100_000


@click.command()
@click.argument("runs", metavar="RUN_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write; needed unless --compare.")
@click.option(
    "--weights", type=click.Choice(FORMS), help="How weights are stored. Default: what they were trained for."
)
@click.option("--experts", type=Count(MOST_EXPERTS), help="Experts of each mixture that stay.")
@click.option("--merge", is_flag=True, help="Merge the other experts instead of dropping them.")
@click.option("--compare", is_flag=True, help="Put the exported models RUN_DIR... side by side instead.")
@click.option("--data", "data", type=click.Path(path_type=Path), help="The run whose test data --compare judges by.")
@click.option(
    "--report", "page", type=click.Path(path_type=Path, dir_okay=False), help="HTML page of --compare to write."
)
@format_options
def command(runs: tuple[Path, ...], out: Path | None, form: str, quiet: bool, **how: Any) -> None:  # noqa: FBT001
    """Export the training in RUN_DIR (the out of `plan train`) for `plan infer`, or compare exported models."""
    faults = list(_faults(runs, out, how))
    if faults:
        raise InputError(*faults)
    if how["compare"]:
        from executor.deploy import trained  # noqa: PLC0415 (torch, which --help does without)
        from executor.methods.table import compared, sheet  # noqa: PLC0415

        table = compared({folder.name: folder for folder in runs}, trained(how["data"]).data.test)
        emit(form, table, lambda: [sheet(table)])
        if how["page"]:
            reports().write_compression(table, how["page"])
            talk(f"wrote {how['page']}", quiet=quiet)
        return
    from executor.deploy import deploy  # noqa: PLC0415

    folder = out_folder(out)
    if folder is None:
        raise InputError(Fault("--out", "names the folder to write"))
    manifest = deploy(runs[0], folder, how["weights"], how["experts"] or 0, merge=how["merge"])
    emit(form, manifest, lambda: [_sheet(manifest)])
    talk(f"wrote {folder}; predict with: plan infer {folder}", quiet=quiet)


def _faults(runs: tuple[Path, ...], out: Path | None, how: dict[str, Any]) -> list[Fault]:
    """Options that don't go together."""
    found = []
    if how["compare"]:
        if how["data"] is None:
            found.append(Fault("--data", "--compare needs the run whose test data the models are judged by"))
        names = [folder.name for folder in runs]
        if len(set(names)) < len(names):
            found.append(Fault("RUN_DIR", "two of the compared folders have the same name"))
        return found
    if len(runs) > 1:
        found.append(Fault("RUN_DIR", "one run is exported at a time; --compare takes several exported models"))
    if out is None:
        found.append(Fault("--out", "names the folder to write"))
    if how["merge"] and not how["experts"]:
        found.append(Fault("--merge", "needs --experts, how many stay"))
    return found


def _sheet(manifest: dict[str, Any]) -> Sheet:
    rows = [(name, f"{value:.4f}") for name, value in manifest["metrics"].items() if name != "samples"]
    lines = (
        f"{manifest['parameters']:,} values in {human(manifest['stored_bytes'], 'B')}, weights in {manifest['form']}",
        f"torch.export program: {manifest['program']}",
    )
    return Sheet("On the test data", ("metric", "value"), rows, lines)
