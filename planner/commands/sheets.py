"""Tables of plans for people, in human units."""

from __future__ import annotations

from collections.abc import Sequence

from hwprofiles.quantity import format as human
from planner.commands.output import Sheet
from planner.plan import Json

PERCENT = 100.0
HEADERS = (
    "plan", "step", "90 % interval", "tokens/s/GPU", "MFU", "memory", "tp", "pp", "vpp", "cp", "ep", "etp", "dp", "mbs",
    "zero", "recompute", "schedule",
)  # fmt: skip


def plans_sheet(title: str, plans: Sequence[Json], lines: Sequence[str] = (), notes: Sequence[str] = ()) -> Sheet:
    """One row per plan, best first."""
    return Sheet(title, HEADERS, [_row(number, plan) for number, plan in enumerate(plans, 1)], lines, notes)


def _row(number: int, plan: Json) -> tuple[str, ...]:
    s = plan["strategy"]
    low, high = plan["interval_s"]
    degrees = [str(s[axis]) for axis in ("tp", "pp", "vpp", "cp", "ep", "etp", "dp", "micro_batch", "zero")]
    return (
        str(number),
        human(plan["step_time_s"], "s"),
        f"{human(low, 's')} – {human(high, 's')}",
        f"{plan['tokens_per_s_per_gpu']:,.0f}",
        f"{PERCENT * plan['mfu']:.1f} %",
        f"{human(plan['peak_memory_bytes'], 'iB')} of {human(plan['memory_capacity_bytes'], 'iB')}",
        *degrees,
        s["recompute"],
        s["schedule"],
    )


def parts_sheet(title: str, parts: Json, unit: str) -> Sheet:
    """A breakdown: each part with its share, largest first."""
    total = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    rows = [(name, human(value, unit), f"{PERCENT * value / total:.1f} %") for name, value in ordered if value > 0.0]
    return Sheet(title, ("part", "value", "share"), [*rows, ("total", human(total, unit), "100.0 %")])


def training_line(data: Json) -> str:
    """The run in one sentence."""
    t = data["training"]
    return (
        f"{human(t['tokens'], '')} tokens in {t['steps']:,} steps: {human(t['seconds'], 's')}, "
        f"{human(t['cost_usd'], 'USD')}, {t['energy_wh'] / 1e9:,.2f} GWh "
        "(no failures counted)"
    )


def methods_sheets(data: Json) -> list[Sheet]:
    """What the training methods buy and risk, and what the batch makes of the run; nothing for a plain plan."""
    found = []
    if data["methods"]:
        chosen = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in data["methods"]["chosen"].items())
        risks = [f"Published: {row['text']} ({row['source']})." for row in data["methods"]["risks"]]
        found.append(Sheet("", (), (), (f"Training methods: {chosen}.", *data["methods"]["buys"], *risks)))
    if data["batch"]:
        found.append(Sheet("", (), (), data["batch"]["words"]))
    return found
