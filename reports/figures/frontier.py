"""What a faster step costs in memory: every listed plan, and the frontier that no plan beats on both."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from reports import theme
from reports.words import GIB, Json, count, memory, percent, seconds, strategy_line

SLOWEST = 2  # times the fastest step


def draw(search: Json) -> go.Figure:
    """`plans` as dots, `frontier` as a line, the chosen plan a star; up to twice the fastest step."""
    drawn = theme.figure("Step time against memory headroom", "memory headroom per GPU (GiB)", "step time (s)", 400)
    frontier = sorted(_near(search["frontier"]), key=_headroom)
    _scatter(drawn, "Other plans", _near(search["plans"]), mode="markers",
             marker={"color": theme.colour("grey"), "size": 7, "opacity": 0.55})  # fmt: skip
    _scatter(drawn, "Frontier", frontier, mode="lines+markers", line={"color": theme.colour("blue"), "width": 2},
             marker={"color": theme.colour("blue"), "size": 9})  # fmt: skip
    _scatter(drawn, "Chosen plan", search["plans"][:1], mode="markers",
             marker={"color": theme.colour("orange"), "size": 17, "symbol": "star",
                     "line": {"color": theme.colour("surface"), "width": 1.5}})  # fmt: skip
    drawn.update_xaxes(rangemode="tozero")
    return drawn


def _near(estimates: Sequence[Json]) -> list[Json]:
    """Those not slower than twice the fastest: beyond, no one would pay so much time for memory."""
    fastest = min((float(e["step_time_s"]) for e in estimates), default=0.0)
    return [e for e in estimates if e["step_time_s"] <= SLOWEST * fastest]


def _headroom(estimate: Json) -> float:
    return float(estimate["memory_capacity_bytes"] - estimate["peak_memory_bytes"])


def _scatter(drawn: go.Figure, name: str, estimates: Sequence[Json], **style: object) -> None:
    drawn.add_scatter(
        name=name, x=[_headroom(e) / GIB for e in estimates], y=[e["step_time_s"] for e in estimates], **style,
        customdata=[[theme.plain(strategy_line(e["strategy"])), seconds(e["step_time_s"]), percent(e["mfu"]),
                     memory(_headroom(e))] for e in estimates],
        hovertemplate="%{customdata[0]}<br>step %{customdata[1]} · MFU %{customdata[2]}<br>headroom %{customdata[3]}"
                      "<extra></extra>",
    )  # fmt: skip


def read(search: Json) -> str:
    """The two ends of the frontier shown."""
    frontier = sorted(_near(search["frontier"]), key=lambda e: float(e["step_time_s"]))
    fastest, roomiest = frontier[0], max(frontier, key=_headroom)
    first = f"The fastest plan takes {seconds(fastest['step_time_s'])} a step and leaves {memory(_headroom(fastest))}"
    if roomiest is fastest:
        return f"{first}; no plan leaves more."
    slower = roomiest["step_time_s"] / fastest["step_time_s"] - 1
    plans = f"{count(len(frontier))} plans on the frontier"
    left_out = len(search["frontier"]) - len(frontier)
    rest = f"; {count(left_out)} that are more than twice as slow are not shown" if left_out else ""
    room = f"leaves {memory(_headroom(roomiest))} for a step {percent(slower)} longer"
    return f"{first}; the roomiest of {plans} {room}{rest}."
