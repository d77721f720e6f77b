"""`plan models`: the catalogue, or one model in detail."""

from __future__ import annotations

import click

from planner import catalog
from planner.commands.options import COUNT
from planner.commands.output import Sheet, cells, emit, format_options
from planner.plan import Json
from planner.provenance import SCHEMA_VERSION


@click.command()
@click.argument("name", required=False)
@click.option("--seq-len", type=COUNT, default="4096", show_default=True, help="Sequence for the FLOP of attention.")
@click.option("--assume", metavar="FAMILY", help="Read an unknown config.json as this family.")
@format_options
def command(name: str | None, seq_len: int, assume: str | None, form: str, quiet: bool) -> None:  # noqa: FBT001
    """List the catalogue, or describe the model NAME (a catalogue name, a config.json or a model TOML)."""
    if name is None:
        rows = [catalog.describe(catalog.load(known), seq_len) for known in catalog.names()]
        emit(form, {"schema_version": SCHEMA_VERSION, "models": rows}, lambda: [_list(rows)])
    else:
        data = catalog.describe(catalog.load(name, assume), seq_len)
        emit(form, data, lambda: [_one(data)])


def _list(rows: list[Json]) -> Sheet:
    body = [(r["name"], r["family"], *cells((r["parameters"]["total"], r["parameters"]["active"]))) for r in rows]
    return Sheet("Models", ("name", "family", "parameters", "active"), body)


def _one(data: Json) -> Sheet:
    flops = data["model_flops_per_token"]
    half = f"{flops['causal'] / 1e9:,.1f} GFLOP (causal attention counted half)"
    full = f"{flops['full_attention'] / 1e9:,.1f} GFLOP (full attention)"
    lines = (
        f"{data['name']} ({data['family']})",
        f"model FLOP per token at {flops['seq_len']:,} tokens: {half}, {full}",
    )
    return Sheet("Parameters", ("part", "count"), [(k, *cells((v,))) for k, v in data["parameters"].items()], lines)
