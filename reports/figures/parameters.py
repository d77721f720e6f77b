"""What the model is made of: each part's parameters, all of them and those that one token uses."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from reports import theme
from reports.words import PARTS, Json, count, name_of, percent, sentence_case

FEW_DECADES = 5  # from here on every second one is labelled
APART = ("total", "active")


def parts(plan: Json) -> dict[str, tuple[float, float]]:
    """(total, active) per part, largest first; only routed experts and MTP are not fully active."""
    counts = {part: float(n) for part, n in plan["model"]["parameters"].items() if part not in APART and n > 0}
    always = sum(n for part, n in counts.items() if part not in ("experts", "mtp"))
    active = {part: n for part, n in counts.items() if part not in ("experts", "mtp")}
    active["experts"] = max(0.0, plan["model"]["parameters"]["active"] - always)
    ordered = sorted(counts, key=lambda part: -counts[part])
    return {part: (counts[part], active.get(part, 0.0)) for part in ordered}


def draw(plan: Json) -> go.Figure:
    """One row per part on a logarithmic axis: a ring for all parameters, a dot for those one token uses."""
    table = parts(plan)
    drawn = theme.figure("Parameters by part", "parameters (logarithmic)", "")
    order = list(table)
    for row, (total, active) in enumerate(table.values()):
        if 0 < active < total:
            drawn.add_scatter(x=[active, total], y=[row, row], mode="lines", showlegend=False, hoverinfo="skip",
                              line={"color": theme.colour("rule"), "width": 4})  # fmt: skip
    rings = {"color": "rgba(0,0,0,0)", "size": 15, "line": {"color": theme.colour("blue"), "width": 2.5}}
    dots = {"color": theme.colour("orange"), "size": 8}
    for name, index, marker in (("All parameters", 0, rings), ("Used by one token", 1, dots)):
        shown = [part for part in order if table[part][index] > 0]
        drawn.add_scatter(
            name=name, mode="markers", marker=marker, x=[table[p][index] for p in shown],
            y=[order.index(p) for p in shown],
            customdata=[[theme.plain(name_of(p, PARTS)), count(table[p][0]), count(table[p][1])] for p in shown],
            hovertemplate="%{customdata[0]}: %{customdata[1]}<br>used by one token: %{customdata[2]}<extra></extra>",
        )  # fmt: skip
    theme.rows(drawn, [theme.row_label(sentence_case(name_of(p, PARTS)), count(table[p][0])) for p in order])
    decades = math.log10(max(t for t, _ in table.values()) / min(t for t, _ in table.values()))
    drawn.update_xaxes(type="log", exponentformat="B", tickangle=0, dtick=1 if decades < FEW_DECADES else 2)
    return drawn


def read(plan: Json) -> str:
    """The active share and the largest part."""
    counts, table = plan["model"]["parameters"], parts(plan)
    largest = next(iter(table))
    share = f"{count(counts['active'])} of {count(counts['total'])} parameters"
    held = f"the largest part is {name_of(largest, PARTS)} ({percent(table[largest][0] / counts['total'])} of all)"
    return f"One token uses {share} ({percent(counts['active'] / counts['total'])}); {held}."
