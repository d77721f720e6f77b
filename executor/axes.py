"""Which axes of a large plan stay above 1 on a few ranks, and how far.

Priority: the axis whose groups cross the outermost tier of the plan's cluster first; among equals pp, dp, cp, tp (the
schedule lives on pp). Each axis in turn gets a prime factor of the ranks, up to its degree in the plan; what no axis
takes goes to dp. The experts then fold the ranks of one stage in the same way: ep, edp, etp.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.cost.groups import groups
from planner.plan import Plan
from planner.strategy import Degrees

DENSE = ("pp", "dp", "cp", "tp")
EXPERT = ("ep", "edp", "etp")
ANY_FACTOR = frozenset({"pp", "dp", "ep", "edp"})  # tp and cp cut heads and widths, which stay powers of two


@dataclass(frozen=True)
class Axis:
    """One axis: its `name`, its `degree` in the plan and the `tier` (index, outermost crossed) of its groups there."""

    name: str
    degree: int
    tier: int


def axes(plan: Plan) -> dict[str, Axis]:
    """The axes of a plan; an axis of degree 1 crosses no tier (-1)."""
    degrees, made = plan.degrees, groups(plan.degrees, plan.setting.choices)
    inner = int(degrees.tp * degrees.cp)
    spans = {
        "tp": int(made.tp.stride * made.tp.size),
        "cp": int(made.cp.stride * made.cp.size),
        "pp": int(made.pp.stride * made.pp.size),
        "dp": int(inner * (made.data.stride // degrees.tp) * degrees.dp),
        "ep": int(made.ep.stride * made.ep.size),
        "etp": int(made.etp.stride * made.etp.size),
        "edp": int(made.expert_data.stride * made.expert_data.size),
    }
    sizes = [tier.size for tier in plan.setting.tiers]
    found = {}
    for name, span in spans.items():
        degree = int(getattr(degrees, name))
        crossed = sum(size < span for size in sizes)
        found[name] = Axis(name, degree, min(crossed, len(sizes) - 1) if degree > 1 else -1)
    return found


def fold(plan: Plan, ranks: int) -> Degrees:
    """The degrees of `ranks` ranks that keep as many of the plan's axes above 1 as the prime factors allow."""
    found = axes(plan)
    order = sorted(DENSE, key=lambda name: (-found[name].tier, DENSE.index(name)))
    dense = _share(ranks, {name: found[name].degree for name in order}, rest="dp")
    room = ranks // dense["pp"]
    wanted = {name: found[name].degree for name in EXPERT}
    expert = _share(room, wanted, rest="edp") if plan.setting.model.experts else {"ep": 1, "etp": 1}
    return Degrees(ranks, tp=dense["tp"], pp=dense["pp"], cp=dense["cp"], ep=expert["ep"], etp=expert["etp"])


def _share(ranks: int, wanted: dict[str, int], rest: str) -> dict[str, int]:
    """Deal the prime factors of `ranks`, the largest first, each to the axis that has got least so far."""
    got = dict.fromkeys(wanted, 1)
    for factor in _primes(ranks):
        open_axes = [
            name for name, most in wanted.items() if got[name] * factor <= most and (factor == 2 or name in ANY_FACTOR)
        ]
        got[min(open_axes, key=lambda name: got[name], default=rest)] *= factor
    return got


def _primes(number: int) -> list[int]:
    """Prime factors, the largest first."""
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found[::-1]
