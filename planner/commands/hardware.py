"""`plan hardware`: the profiles, one profile with the source of each number, or the difference of two."""

from __future__ import annotations

from typing import Any

import click

from hwprofiles import load
from planner.commands.output import Sheet, emit, format_options
from planner.errors import Fault, InputError, nearest
from planner.provenance import SCHEMA_VERSION

KINDS = ("cluster", "gpu", "node", "fabric")
DIFF_ARGUMENTS = 3


@click.command()
@click.argument("names", nargs=-1)
@format_options
def command(names: tuple[str, ...], form: str, quiet: bool) -> None:  # noqa: FBT001
    """List profiles; show NAME with the source of each number; or `diff A B`."""
    if not names:
        data: dict[str, Any] = {kind: load.names(kind) for kind in KINDS}
        sheets = [Sheet(kind.capitalize() + "s", ("name",), [(name,) for name in data[kind]]) for kind in KINDS]
    elif names[0] == "diff" and len(names) == DIFF_ARGUMENTS:
        data, sheets = _diff(names[1], names[2])
    elif len(names) == 1:
        data, sheets = _one(names[0])
    else:
        raise click.UsageError("expected no name, one NAME, or `diff A B`")
    emit(form, {"schema_version": SCHEMA_VERSION, **data}, lambda: sheets)


def kinds(name: str) -> list[str]:
    """Every kind of profile that `name` is, of cluster, GPU, node and fabric; a path is a cluster file."""
    if name.endswith(".toml") or "/" in name:
        load.raw("cluster", name)
        return ["cluster"]
    found = [kind for kind in KINDS if _is(kind, name)]
    if found:
        return found
    known = [known for kind in KINDS for known in load.names(kind)]
    raise InputError(
        Fault("hardware", "no profile has this name; `plan hardware` lists them", name, nearest(name, known))
    )


def _is(kind: str, name: str) -> bool:
    try:
        load.raw(kind, name)
    except InputError:
        return False
    return True


def _one(name: str) -> tuple[dict[str, Any], list[Sheet]]:
    kind = kinds(name)[0]
    found = load.raw(kind, name)
    numbers = {key: {"value": d.value, "unit": d.unit, "text": d.text, "source": d.source} for key, d in found.items()}
    rows = [(key, d.text, d.source) for key, d in found.items()]
    return {"name": name, "kind": kind, "numbers": numbers}, [
        Sheet(f"{kind} {name}", ("number", "value", "source"), rows)
    ]


def _diff(a: str, b: str) -> tuple[dict[str, Any], list[Sheet]]:
    ours, theirs = kinds(a), kinds(b)
    kind = next((kind for kind in ours if kind in theirs), None)
    if kind is None:
        expected = f"{a} is a {' and a '.join(ours)}, this a {' and a '.join(theirs)}; name two of one kind"
        raise InputError(Fault("hardware diff", expected, b))
    left, right = load.raw(kind, a), load.raw(kind, b)
    rows, data = [], {}
    for key in dict.fromkeys((*left, *right)):
        one, two = left.get(key), right.get(key)
        if one is None or two is None or one.value != two.value:
            ratio = two.value / one.value if one and two and one.value else None
            data[key] = {a: one and one.value, b: two and two.value, "ratio": ratio}
            rows.append((key, one.text if one else "-", two.text if two else "-", f"{ratio:.2f}" if ratio else "-"))
    return {"kind": kind, "differences": data}, [Sheet(f"{a} and {b}", ("number", a, b, "ratio"), rows)]
