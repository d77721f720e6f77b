"""A model as a TOML table of shape fields; or kinds of layers, each with its own fields, and their order.

A flat table is one shape; with `architecture = "resnet"` it has the fields of a residual network instead. With
`[kinds.NAME]` the fields of a kind override the table's for that kind, `reach` says what its attention sees, and
`order = [{kind = "NAME", count = 3}, …]` lists the layers from first to last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from hwprofiles.faults import Fault, InputError, nearest
from planner import residual_network
from planner.model import Model
from planner.residual_network import ResidualNetwork
from planner.shape import MOST_LAYERS, REACHES, Shape, assemble, build, faults, layer, resolved

SHAPE_KEYS = tuple(field.name for field in fields(Shape) if field.name != "provenance")
OWN_KEYS = ("aliases", "kinds", "order", "refused", "source")
NEEDED = ("hidden", "vocab", "heads", "source")
NETWORK_KEYS = tuple(field.name for field in fields(ResidualNetwork) if field.name != "provenance")
NETWORK_NEEDED = ("image", "widths", "depths", "classes", "source")
_WHOLE_MODEL = """
    name family layers hidden vocab tied norm positions embedding_norm head_bias mtp_layers reaches first_dense
    moe_every dense_layers token_types predicts classes pooled image patch channels causal rotary
"""
WHOLE_MODEL = frozenset(_WHOLE_MODEL.split())
KIND_KEYS = (*(key for key in SHAPE_KEYS if key not in WHOLE_MODEL), "reach")

Table = Mapping[str, Any]


def model_of_table(table: Table, where: str, name: str) -> Model:
    """The model that a TOML table describes; raises InputError with all faults."""
    if isinstance(table.get("refused"), str):
        raise InputError(Fault(where, table["refused"]))
    if "architecture" in table:
        return _network(table, where, name)
    explicit = "kinds" in table or "order" in table
    needed = [key for key in NEEDED if key != "vocab" or "image" not in table] + ["layers"] * (not explicit)
    wrong = [
        *_unknown(table, (*SHAPE_KEYS, *OWN_KEYS), where),
        *(Fault(f"{where}: {key}", "is missing") for key in needed if key not in table),
    ]
    source = table.get("source", "")
    if not isinstance(source, str) or not source.strip():
        wrong.append(Fault(f"{where}: source", "expected where the numbers are from", source))
    if wrong:
        raise InputError(*wrong)
    given = {key: _plain(table[key]) for key in SHAPE_KEYS if key in table}
    top = {"name": name, "family": "table", "layers": 1, "vocab": 0, **given, "provenance": source}
    return _explicit(Shape(**top), table, where) if explicit else build(Shape(**top), where)


def _network(table: Table, where: str, name: str) -> Model:
    """A residual network."""
    source = table.get("source", "")
    wrong = [
        *_unknown(table, (*NETWORK_KEYS, "architecture", "aliases", "source"), where),
        *(Fault(f"{where}: {key}", "is missing") for key in NETWORK_NEEDED if key not in table),
    ]
    if table["architecture"] != "resnet":
        wrong.append(Fault(f"{where}: architecture", 'expected "resnet", or no such key', table["architecture"]))
    if not isinstance(source, str) or not source.strip():
        wrong.append(Fault(f"{where}: source", "expected where the numbers are from", source))
    if wrong:
        raise InputError(*wrong)
    given = {key: _plain(table[key]) for key in NETWORK_KEYS if key in table}
    network = ResidualNetwork(**{"name": name, **given, "provenance": source})
    return residual_network.build(network, where)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _unknown(table: Table, known: tuple[str, ...], where: str) -> list[Fault]:
    return [Fault(f"{where}: {key}", "no such key", nearest=nearest(key, known)) for key in table if key not in known]


def unknown_keys(table: Table, where: str) -> list[Fault]:
    """The keys of a model's table that no kind of model has."""
    return _unknown(table, (*SHAPE_KEYS, *OWN_KEYS, *NETWORK_KEYS, "architecture"), where)


def _explicit(top: Shape, table: Table, where: str) -> Model:
    kinds, order = table.get("kinds"), table.get("order")
    if not isinstance(kinds, dict) or not kinds or not all(isinstance(kind, dict) for kind in kinds.values()):
        raise InputError(Fault(f"{where}: kinds", "expected one table [kinds.NAME] for each kind of layer", kinds))
    names = list(kinds)
    counts = _counts(order, names, where)
    wrong = [fault for name in names for fault in _unknown(kinds[name], KIND_KEYS, f"{where}: kinds.{name}")]
    total = sum(count for _, count in counts)
    if "layers" in table and table["layers"] != total:
        wrong.append(Fault(f"{where}: layers", f"the order has {total}", table["layers"]))
    if total > MOST_LAYERS:
        wrong.append(Fault(f"{where}: order", f"expected at most {MOST_LAYERS} layers", total))
    if wrong:
        raise InputError(*wrong)
    shapes = {name: _kind(top, kinds[name]) for name in names}
    wrong = [fault for name in names for fault in faults(shapes[name], f"{where}: kinds.{name}")]
    if wrong:
        raise InputError(*wrong)
    layers = tuple(
        layer(resolved(shape), shape.reach(0), experts=shape.experts > 0, name=name) for name, shape in shapes.items()
    )
    widest = max(shapes.values(), key=lambda shape: shape.experts)
    whole = resolved(replace(widest, name=top.name, layers=total))
    return assemble(whole, layers, tuple(names.index(name) for name, count in counts for _ in range(count)))


def _kind(top: Shape, own: Table) -> Shape:
    known: dict[str, Any] = {key: _plain(value) for key, value in own.items() if key != "reach"}
    reach = (own.get("reach", REACHES[0]),)
    return replace(top, layers=1, reaches=reach, first_dense=0, moe_every=1, dense_layers=(), **known)


def _counts(order: Any, names: list[str], where: str) -> list[tuple[str, int]]:
    """(kind, count) from first to last."""
    place = f"{where}: order"
    if not isinstance(order, list) or not order:
        raise InputError(Fault(place, 'expected a list like [{kind = "dense", count = 3}]', order))
    found, wrong = [], []
    for entry in order:
        kind, count = (entry.get("kind"), entry.get("count", 1)) if isinstance(entry, dict) else (entry, 1)
        if kind not in names:
            close = nearest(kind, names) if isinstance(kind, str) else None
            wrong.append(Fault(place, f"expected one of the kinds {', '.join(names)}", kind, close))
        elif type(count) is not int or not 1 <= count <= MOST_LAYERS:
            wrong.append(Fault(place, f"count must be a whole number from 1 to {MOST_LAYERS}", count))
        else:
            found.append((kind, count))
    if wrong:
        raise InputError(*wrong)
    return found
