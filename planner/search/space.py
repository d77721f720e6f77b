"""The space of strategies of one model on one cluster: values per axis, enumerated as arrays under the rules.

Rows are built axis by axis so that a rule that needs few axes drops a whole branch at once; such a branch counts as one
in `dropped`. Nothing legal is left out but by the bounds of `Space`, which the report states.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner import schedules
from planner.divisibility import divisors, widths
from planner.layout import chain
from planner.rules import FOLD, REST, STRUCTURE, Case, Rule, rules
from planner.strategy import ORDERS, RECOMPUTE, ZERO, Choices, Degrees

Ints = NDArray[np.int64]
AXES = ("tp", "pp", "cp", "ep", "etp", "micro_batch", "vpp", "replicas")
SWEPT = ("1f1b", "gpipe", "interleaved")  # schedules that a search tries unless told otherwise
WHOLE = 0  # values of replicas: 0 shards over the whole group, n > 0 inside a domain of n GPUs, -n in n copies
SHARDS = Rule("shards", lambda c: c.d.replicas >= 1, lambda c: "shards must be smaller than the group")
CHOICES = ("schedule", "recompute", "zero", "order")


@dataclass(frozen=True)
class Space:
    """Values to try: `values[axis]` for the degrees, `choices[name]` for the categories."""

    values: dict[str, tuple[int, ...]]
    choices: dict[str, tuple[Any, ...]]


@dataclass
class Tally:
    """What was looked at: candidates checked, and how many each rule dropped."""

    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, rule: str, count: int) -> None:
        """Add `count` candidates dropped by `rule`."""
        if count:
            self.dropped[rule] = self.dropped.get(rule, 0) + count


def whole_space(case: Case, max_micro_batch: int, swept: tuple[str, ...] = SWEPT) -> Space:
    """All values that could be legal, within the bounds that `bounds` states."""
    model, world = case.model, int(case.d.world)
    layers = len(chain(model))
    expert_width = widths(model, expert=True)
    world_divisors = divisors(world)
    domain = case.cluster.tiers[0].size
    experts = model.experts > 0
    values = {
        "tp": tuple(x for x in divisors(model.heads or 1) if world % x == 0 and x <= domain),
        "pp": tuple(x for x in world_divisors if x <= layers),
        "cp": tuple(x for x in world_divisors if x <= case.workload.seq_len),
        "ep": tuple(x for x in divisors(model.experts) if world % x == 0) if experts else (1,),
        "etp": tuple(x for x in divisors(expert_width) if world % x == 0 and x <= domain) if experts else (1,),
        "micro_batch": tuple(x for x in divisors(case.workload.global_batch) if x <= max_micro_batch),
        "vpp": tuple(range(1, layers + 1)),
        "replicas": (WHOLE, *_islands(case)),
    }
    return Space(values, {"schedule": swept, "recompute": RECOMPUTE, "zero": ZERO, "order": ORDERS})


def bounds(case: Case, max_micro_batch: int) -> list[str]:
    """The limits of the space that are no rules, in words."""
    domain = case.cluster.tiers[0]
    return [
        f"tp and etp up to the {domain.size} GPUs of one {domain.name} domain (wider with --fix)",
        f"micro-batch up to {max_micro_batch} sequences (--max-micro-batch)",
        "ZeRO shards over all data-parallel ranks, or over those inside one domain beyond which bandwidth falls",
    ]


def _islands(case: Case) -> tuple[int, ...]:
    """Sizes of the domains that the next tier connects with less bandwidth."""
    tiers = case.cluster.tiers
    return tuple(a.size for a, b in pairwise(tiers) if b.bandwidth < a.bandwidth)


def fixed(space: Space, fix: dict[str, Any]) -> Space:
    """The space with the given axes or choices held at one value; `replicas` counts copies of the sharded states."""
    held = {axis: -value if axis == "replicas" else value for axis, value in fix.items() if axis in space.values}
    values = {axis: (held[axis],) if axis in held else found for axis, found in space.values.items()}
    choices = {name: (fix[name],) if name in fix else found for name, found in space.choices.items()}
    return Space(values, choices)


@dataclass(frozen=True)
class Rows:
    """Legal degrees of one schedule, with or without ZeRO; `unit` is each one's row of the inner grid."""

    degrees: Degrees
    unit: Ints

    def __len__(self) -> int:
        """Number of candidates."""
        return len(self.unit)


def inner_grid(case: Case, space: Space, tally: Tally) -> tuple[Degrees, Degrees, Ints]:
    """Legal (tp, pp, cp, ep, etp, micro_batch): all of them, the distinct inner points without pp, and their index."""
    base = replace(case.choices, order=ORDERS[0])
    case = replace(case, choices=base)
    folds = tuple(rule for rule in FOLD if rule.name != "order")
    rows = _cross(Degrees(case.d.world), space, ("tp", "pp", "cp"))
    rows = _keep(rows, STRUCTURE, case, tally)
    rows = _keep(_cross(rows, space, ("ep", "etp")), folds, case, tally)
    rows = _keep(_cross(rows, space, ("micro_batch",)), REST[:1], case, tally)
    key = np.zeros(np.size(rows.tp), dtype=np.int64)
    for axis in ("tp", "cp", "ep", "etp", "micro_batch"):
        column = np.asarray(getattr(rows, axis))
        key = key * (int(column.max(initial=0)) + 1) + column
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    return rows, replace(rows.take(first), pp=1), index.astype(np.int64)


def outer_rows(case: Case, space: Space, rows: Degrees, index: Ints, tally: Tally) -> Rows:
    """The rows crossed with vpp and replicas, under the remaining rules for these choices."""
    own = rules(case.choices)[len(STRUCTURE) + len(FOLD) + len(REST) :]
    depth = space.values["vpp"] if schedules.get(case.choices.schedule).chunked else _only(space, "vpp", 1)
    early = tuple(rule for rule in own if rule.name in ("schedule_chunks", "schedule_whole_stage"))
    kept = _mask(rows, FOLD[-1:], case, tally)
    rows, index = rows.take(kept), index[kept]
    pairs = _cross(Degrees(case.d.world), Space(space.values | {"vpp": depth}, {}), ("pp", "vpp"))
    pairs = _keep(pairs, (REST[1], *early), case, tally)
    where, vpp = _join(np.asarray(rows.pp), np.asarray(pairs.pp), np.asarray(pairs.vpp))
    rows, index = replace(rows.take(where), vpp=vpp), index[where]
    kept = _mask(rows, tuple(rule for rule in own if rule not in early), case, tally)
    rows, index = rows.take(kept), index[kept]
    copies = space.values["replicas"] if case.choices.zero else _only(space, "replicas", WHOLE)
    where = np.tile(np.arange(len(index)), len(copies))
    rows = rows.take(where)
    rows = replace(rows, replicas=_replicas(rows, np.repeat(np.asarray(copies), len(index))))
    new = _mask(rows, (SHARDS,), case, Tally())  # a domain that holds all ranks is the whole group again: no candidate
    rows, where = rows.take(new), where[new]
    kept = _mask(rows, REST[2:], case, tally)
    return Rows(rows.take(kept), index[where[kept]])


def _replicas(rows: Degrees, domain: Ints) -> Ints:
    """Copies of the states when they are sharded inside a domain of so many GPUs; 1 for the whole group, 0 for none."""
    extent = rows.dp * rows.cp * rows.tp
    size = np.maximum(domain, 1)
    inside = np.where(extent % size == 0, extent // size, 0)
    found = np.where(domain == WHOLE, 1, np.where(inside == 1, 0, inside))
    return np.asarray(np.where(domain < WHOLE, -domain, found), dtype=np.int64)


def _join(left: Ints, keys: Ints, values: Ints) -> tuple[Ints, Ints]:
    """Each row of `left` with every value whose key it equals: positions in `left`, and the values."""
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(keys[order], left, side="left")
    count = np.searchsorted(keys[order], left, side="right") - first
    where = np.repeat(np.arange(len(left)), count)
    within = np.arange(len(where)) - np.repeat(np.cumsum(count) - count, count)
    return where, values[order][first[where] + within]


def _only(space: Space, axis: str, wanted: int) -> tuple[int, ...]:
    return tuple(value for value in space.values[axis] if value in (wanted, -1))


def combinations(space: Space, base: Choices) -> list[Choices]:
    """Every choice of categories, in a fixed order."""
    found = product(*(space.choices[name] for name in CHOICES))
    return [replace(base, **dict(zip(CHOICES, values, strict=True))) for values in found]


def _cross(rows: Degrees, space: Space, axes: tuple[str, ...]) -> Degrees:
    """Each row with each combination of the values of `axes`, in order."""
    length = np.size(rows.tp)
    grids = np.meshgrid(np.arange(length), *(np.asarray(space.values[axis], np.int64) for axis in axes), indexing="ij")
    index = grids[0].reshape(-1)
    base = rows.take(index) if np.ndim(rows.tp) else rows
    return replace(base, **{axis: grid.reshape(-1) for axis, grid in zip(axes, grids[1:], strict=True)})


def _mask(rows: Degrees, checks: tuple[Rule, ...], case: Case, tally: Tally) -> Ints:
    """Positions of the rows that pass every rule, in order; each dropped row counts for the first rule it breaks."""
    length = max(np.size(rows.tp), np.size(rows.pp))
    alive = np.ones(length, dtype=bool)
    for rule in checks:
        left = alive & np.broadcast_to(np.asarray(rule.holds(replace(case, d=rows)), dtype=bool), (length,))
        tally.drop(rule.name, int(alive.sum() - left.sum()))
        alive = left
    return np.flatnonzero(alive).astype(np.int64)


def _keep(rows: Degrees, checks: tuple[Rule, ...], case: Case, tally: Tally) -> Degrees:
    return rows.take(_mask(rows, checks, case, tally))
