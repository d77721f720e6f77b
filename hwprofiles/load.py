"""The catalogue and the user's files: TOML → Gpu, Node, Fabric, Cluster, with each number's unit and source checked.

A profile may name a `base` profile of its kind and state only what differs. A cluster names its parts or carries
them as tables. Nothing here imports networkx or scipy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from hwprofiles import schema, topology
from hwprofiles.curve import AttentionCurve, GroupedCurve, MatmulCurve
from hwprofiles.document import Check, Datum, decode, flat, read, values
from hwprofiles.faults import Fault, InputError, nearest
from hwprofiles.spec import Cluster, Fabric, Gpu, Node

KINDS = ("gpu", "node", "fabric", "cluster")
PARTS = ("gpu", "node", "fabric")
DEEPEST_BASE = 8
Tree = dict[str, Any]
Spec = TypeVar("Spec", Gpu, Node, Fabric)


def gpu(name: str) -> Gpu:
    """The catalogue GPU called `name` (aliases and capitals allowed)."""
    return _gpu(_find("gpu", name))


def node(name: str) -> Node:
    """The catalogue node called `name`."""
    return _node(_find("node", name))


def fabric(name: str) -> Fabric:
    """The catalogue fabric called `name`."""
    return _fabric(_find("fabric", name))


def cluster(name_or_path: str | Path, gpus: int | None = None) -> Cluster:
    """A catalogue cluster or a cluster TOML, cut to `gpus` GPUs (its own size when None).

    Raises InputError for every fault of the file, more GPUs than its `max_gpus`, or a broken node.
    """
    whole, limit = _cluster_file(Path(name_or_path)) if _is_path(name_or_path) else _cluster(str(name_or_path))
    count = whole.gpus if gpus is None else gpus
    _refuse_count(whole, limit, count)
    return replace(whole, gpus=count, tiers=topology.tiers(whole.node, whole.fabric, count))


def names(kind: str) -> list[str]:
    """The catalogue names of a kind: gpu, node, fabric or cluster."""
    if kind not in KINDS:
        raise InputError(Fault("kind", f"one of {', '.join(KINDS)} is expected", kind, nearest(kind, KINDS)))
    entries = (entry.name for entry in _folder(kind).iterdir())
    return sorted(entry.removesuffix(".toml") for entry in entries if entry.endswith(".toml"))


def raw(kind: str, name: str | Path) -> dict[str, Datum]:
    """Each number of a profile by dotted key: SI value and unit, text as written, and the full citation."""
    if kind == "cluster" and _is_path(name):
        file, text = str(name), read(Path(name))
    else:
        file = _find(kind, str(name))
        text = _merged(kind, file)
    own = text.get("sources", {})
    tree = _checked(text, _fields(kind, text), file)
    return {key: replace(datum, source=citation(datum.source, own)) for key, datum in flat(tree)}


def citation(source: str, own: Mapping[str, Any] | None = None) -> str:
    """The full reference behind a `source` entry: title, place and date, then its remark."""
    head, _, remark = source.partition(":")
    entry = {**bibliography(), **(own or {})}.get(head)
    if entry is None:
        return source
    if isinstance(entry, Mapping):
        entry = ", ".join(str(entry[key]) for key in ("title", "url", "date") if key in entry)
    return f"{entry}; {remark.strip()}" if remark.strip() else str(entry)


@cache
def bibliography() -> Mapping[str, Any]:
    """The shared sources by key: title, url (or paper, or repository and commit), date."""
    return dict(_data("sources.toml")["sources"])


def _is_path(name: str | Path) -> bool:
    return isinstance(name, Path) or name.endswith(".toml") or "/" in name


def _folder(kind: str) -> Traversable:
    return resources.files("hwprofiles") / "data" / f"{kind}s"


@cache
def _data(file: str) -> Tree:
    return decode((resources.files("hwprofiles") / "data" / file).read_bytes(), file)


def _find(kind: str, name: str) -> str:
    """The catalogue's own name for `name`."""
    wanted = name.strip().lower()
    known = names(kind)
    if wanted in known:
        return wanted
    aliases: Mapping[str, str] = _data("aliases.toml").get(kind, {})
    if wanted in aliases:
        return aliases[wanted]
    raise InputError(Fault(f"{kind} {name!r}", f"no {kind} of this name", None, nearest(name, [*known, *aliases])))


@cache
def _merged(kind: str, name: str, depth: int = 0) -> Tree:
    """The document of a catalogue profile on top of its base."""
    return _on_base(kind, _data(f"{kind}s/{name}.toml"), name, depth)


def _on_base(kind: str, text: Tree, file: str, depth: int = 0) -> Tree:
    base = text.get("base")
    if base is None:
        return text
    if not isinstance(base, str) or depth > DEEPEST_BASE:
        raise InputError(Fault(f"{file}:base", f"the name of a {kind} is expected", base))
    own = {key: value for key, value in text.items() if key != "base"}
    return _overlaid(_merged(kind, _find(kind, base), depth + 1), own)


def _overlaid(below: Tree, above: Tree) -> Tree:
    """`above` over `below`, table by table; a number (a table with `value`) is replaced whole."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        deeper = isinstance(value, dict) and isinstance(old, dict) and "value" not in value
        both[key] = _overlaid(old, value) if deeper and isinstance(old, dict) else value
    return both


def _fields(kind: str, text: Tree) -> dict[str, schema.Field]:
    if kind == "fabric":
        return schema.fabric(text.get("kind"))
    return {"gpu": schema.GPU, "node": schema.NODE, "cluster": schema.CLUSTER}[kind]


def _checked(text: Tree, fields: Mapping[str, schema.Field], file: str) -> Tree:
    """`text` against `fields`; its own [sources] count beside the shared ones."""
    own = text.get("sources", {})
    check = Check(file, {*bibliography(), *(own if isinstance(own, Mapping) else ())})
    if not isinstance(own, Mapping):
        check.fault("sources", "a table of sources is expected", own)
    skipped = {"sources", *(PARTS if fields is schema.CLUSTER else ())}
    tree = check.table({key: value for key, value in text.items() if key not in skipped}, fields)
    check.done()
    return tree


def _cited(tree: Tree, text: Tree) -> dict[str, str]:
    own = text.get("sources", {})
    return {key: citation(datum.source, own) for key, datum in flat(tree)}


@cache
def _gpu(name: str) -> Gpu:
    return _make_gpu(_merged("gpu", name), f"gpus/{name}.toml")


@cache
def _node(name: str) -> Node:
    return _make_node(_merged("node", name), f"nodes/{name}.toml")


@cache
def _fabric(name: str) -> Fabric:
    return _make_fabric(_merged("fabric", name), f"fabrics/{name}.toml")


def _make_gpu(text: Tree, file: str) -> Gpu:
    tree = _checked(text, schema.GPU, file)
    plain = values(tree)
    matmul = {dtype: MatmulCurve(**curve) for dtype, curve in plain.pop("matmul").items()}
    grouped, attention = GroupedCurve(**plain.pop("grouped")), AttentionCurve(**plain.pop("attention"))
    return Gpu(**plain, matmul=matmul, grouped=grouped, attention=attention, sources=_cited(tree, text))


def _make_node(text: Tree, file: str) -> Node:
    tree = _checked(text, schema.NODE, file)
    made = Node(**values(tree), sources=_cited(tree, text))
    if made.scale_up_domain % made.gpus:
        whole = f"a multiple of the node's {made.gpus} GPUs is expected"
        raise InputError(Fault(f"{file}:scale_up_domain", whole, made.scale_up_domain))
    return made


def _make_fabric(text: Tree, file: str) -> Fabric:
    tree = _checked(text, schema.fabric(text.get("kind")), file)
    plain = values(tree)
    plain.setdefault("parameters", {})
    groups = [key for key, datum in flat(tree) if datum.unit == schema.GROUP.unit]
    for inner, outer in pairwise(groups):
        small, large = (plain["parameters"][key.removeprefix("parameters.")] for key in (inner, outer))
        if large % small:
            raise InputError(Fault(f"{file}:{outer}", f"a multiple of {inner} = {small} is expected", large))
    return Fabric(**plain, sources=_cited(tree, text))


@cache
def _cluster(name: str) -> tuple[Cluster, int]:
    found = _find("cluster", name)
    return _make_cluster(_merged("cluster", found), f"clusters/{found}.toml")


def _cluster_file(path: Path) -> tuple[Cluster, int]:
    return _make_cluster(_on_base("cluster", read(path), str(path)), str(path))


def _make_cluster(text: Tree, file: str) -> tuple[Cluster, int]:
    """The cluster at its own size and the largest size it may take; the faults of all its parts at once."""
    faults: list[Fault] = []
    tree = _collect(faults, lambda: _checked(text, schema.CLUSTER, file))
    the_node = _collect(faults, lambda: _part("node", text, file, node, _make_node))
    the_fabric = _collect(faults, lambda: _part("fabric", text, file, fabric, _make_fabric))
    if "gpu" not in text and isinstance(the_node, Node):
        text = {**text, "gpu": the_node.gpu}
    the_gpu = _collect(faults, lambda: _part("gpu", text, file, gpu, _make_gpu)) if "gpu" in text else None
    if tree is None or the_node is None or the_fabric is None or the_gpu is None:
        raise InputError(*faults)
    plain = values(tree)
    limit, price = plain.pop("max_gpus"), plain.pop("price", the_gpu.price)
    the_node = replace(the_node, gpu=the_gpu.name)
    made = Cluster(
        **plain, gpu=the_gpu, node=the_node, fabric=the_fabric, tiers=(), price=price, sources=_cited(tree, text)
    )
    if limit < made.gpus:
        raise InputError(Fault(f"{file}:max_gpus", f"at least gpus = {made.gpus} is expected", limit))
    return made, limit


Found = TypeVar("Found")


def _collect(faults: list[Fault], build: Callable[[], Found]) -> Found | None:
    try:
        return build()
    except InputError as error:
        faults.extend(error.faults)
        return None


def _part(kind: str, text: Tree, file: str, named: Callable[[str], Spec], made: Callable[[Tree, str], Spec]) -> Spec:
    """A part of a cluster: a catalogue name, or a table of its own (with the cluster's [sources])."""
    entry = text.get(kind)
    if isinstance(entry, str):
        try:
            return named(entry)
        except InputError as error:
            hints = (Fault(f"{file}:{kind}", fault.expected, entry, fault.nearest) for fault in error.faults)
            raise InputError(*hints) from None
    if isinstance(entry, dict):
        full = _on_base(kind, entry, f"{file}:{kind}")
        return made({**full, "sources": text.get("sources", {})}, f"{file}:{kind}")
    raise InputError(Fault(f"{file}:{kind}", f"the name of a {kind} or a [{kind}] table is expected", entry))


def _refuse_count(whole: Cluster, limit: int, gpus: int) -> None:
    """Raise InputError unless `gpus` is part of one node, or whole nodes within the limit."""
    each = whole.node.gpus
    where = f"{whole.name}:gpus"
    if gpus < 1:
        raise InputError(Fault(where, "a positive whole number of GPUs is expected", gpus))
    if gpus > limit:
        raise InputError(Fault(where, f"at most {limit} GPUs are expected here", gpus, str(limit)))
    if gpus > each and gpus % each:
        closest = str(max(1, round(gpus / each)) * each)
        raise InputError(Fault(where, f"a multiple of the node's {each} GPUs is expected", gpus, closest))
