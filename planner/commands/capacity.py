"""`plan capacity`: how time, cost and efficiency go with the size of the cluster."""

from __future__ import annotations

from pathlib import Path

import click

from hwprofiles import quantity
from hwprofiles.quantity import format as human
from planner.commands.options import COUNT, Common, inputs
from planner.commands.output import Sheet, emit, format_options, out_folder, reports, talk, to_json
from planner.errors import Fault, InputError
from planner.files import write
from planner.plan import Json
from planner.search.capacity import capacity


@click.command()
@inputs
@click.option("--gpus", default="128..131072", show_default=True, help="Sizes: FROM..TO (doubling) or a list.")
@click.option("--deadline", help="Finish within, e.g. 60d: which size is cheapest?")
@click.option("--budget", help="Spend at most, e.g. $50M: which size is fastest?")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for capacity.json and capacity.html.")
@click.option("--dry-run", is_flag=True, help="Check the inputs and say what would be searched.")
@format_options
def command(
    common: Common,
    gpus: str,
    deadline: str | None,
    budget: str | None,
    out: Path | None,
    dry_run: bool,  # noqa: FBT001
    form: str,
    quiet: bool,  # noqa: FBT001
) -> None:
    """Chart the best plan of MODEL at each size of --cluster (several, separated by commas)."""
    folder, clusters = out_folder(out), common.cluster.split(",")
    steps = sizes(gpus)
    limits = (
        quantity.parse(deadline, "seconds", "--deadline") if deadline else None,
        quantity.parse(_money(budget), "usd", "--budget") if budget else None,
    )
    for cluster in clusters:  # a wrong name is an error now, not an empty series later
        common.plan(min(steps), cluster)
    if dry_run:
        talk(f"would search {len(steps)} sizes of {len(clusters)} clusters; inputs are good", quiet=quiet)
        return
    data = capacity(lambda name, n: common.plan(n, name), clusters, steps, limits, lambda text: talk(text, quiet=quiet))
    if folder:
        write(folder / "capacity.json", to_json(data))
        reports().write_capacity(data, folder / "capacity.html")
        talk(f"wrote capacity.json and capacity.html to {folder}", quiet=quiet)
    emit(form, data, lambda: _sheets(data))


def sizes(text: str) -> list[int]:
    """`128..131072` doubles from the first to the last; otherwise a list separated by commas."""
    option = click.Option(["--gpus"])
    if ".." not in text:
        return sorted({COUNT.convert(piece, option, None) for piece in text.split(",")})
    first, last = (COUNT.convert(piece, option, None) for piece in text.split("..", 1))
    if first > last:
        raise InputError(Fault("--gpus", "expected FROM..TO with FROM at most TO", text))
    found = [first]
    while found[-1] * 2 <= last:
        found.append(found[-1] * 2)
    return found


def _money(text: str) -> str:
    """`50M` means dollars here."""
    return text if "$" in text or "USD" in text.upper() else f"${text}"


def _sheets(data: Json) -> list[Sheet]:
    headers = ("GPUs", "days", "cost", "tokens/day", "MFU", "headroom", "tp", "pp", "vpp", "cp", "ep", "zero")
    name, last = data["model"]["name"], data["series"][-1]
    return [
        Sheet(
            f"{name} on {line['cluster']}",
            headers,
            [_row(p) for p in line["points"]],
            notes=data["answers"] if line is last else (),
        )
        for line in data["series"]
    ]


def _row(p: Json) -> tuple[str, ...]:
    if not p["feasible"]:
        return (f"{p['gpus']:,}", "no plan", *("-",) * 10)
    s = p["strategy"]
    return (
        f"{p['gpus']:,}",
        f"{p['days']:,.1f}",
        human(p["cost_usd"], "USD"),
        f"{p['tokens_per_day'] / 1e9:,.0f} B",
        f"{100 * p['mfu']:.1f} %",
        human(p["memory_headroom"], "iB"),
        *(str(s[axis]) for axis in ("tp", "pp", "vpp", "cp", "ep", "zero")),
    )
