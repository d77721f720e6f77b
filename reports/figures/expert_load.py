"""How unevenly the router loads the experts of a layer, and what replicas leave for one slot."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json


def draw(placement: Json) -> go.Figure:
    """Load of each expert over the mean, heaviest first; a dot for what one of its replicas carries."""
    rows = _rows(placement)
    drawn = theme.figure("Load of the experts", "expert, heaviest first", "load over the mean of the experts", 400)
    told = [[expert, f"{load:.2f}", count, f"{load / count:.2f}"] for load, expert, count in rows]
    drawn.add_bar(
        name="Expert", x=list(range(1, len(rows) + 1)), y=[load for load, _, _ in rows], customdata=told,
        marker={"color": theme.colour("blue"), "line": {"width": 0}},
        hovertemplate="expert %{customdata[0]}: %{customdata[1]} times the mean<extra></extra>",
    )  # fmt: skip
    several = [(rank, row) for rank, row in enumerate(rows, start=1) if row[2] > 1]
    if several:
        drawn.add_scatter(
            name="One of its replicas", mode="markers", x=[rank for rank, _ in several],
            y=[load / count for _, (load, _, count) in several],
            marker={"color": theme.colour("orange"), "size": 6},
            customdata=[told[rank - 1] for rank, _ in several],
            hovertemplate="expert %{customdata[0]}, %{customdata[2]} replicas: %{customdata[3]} each<extra></extra>",
        )  # fmt: skip
    drawn.update_layout(bargap=0.1)
    drawn.update_yaxes(rangemode="tozero")
    return drawn


def read(placement: Json) -> str:
    """The heaviest expert, and the heaviest slot with replicas."""
    rows = _rows(placement)
    load, expert, count = rows[0]
    head = f"Expert {expert} gets {load:.1f} times the mean load"
    if count == 1 and all(row[2] == 1 for row in rows):
        return f"{head}; no expert has a replica."
    heaviest = max(load / count for load, _, count in rows)
    return f"{head}; with replicas no slot gets more than {heaviest:.1f} times the mean of the experts."


def _rows(placement: Json) -> list[tuple[float, int, int]]:
    """(load over the mean, expert, replicas), heaviest first."""
    shown = placement["statistics"]
    found = zip(shown["expert_load"], range(len(shown["expert_load"])), shown["replicas"], strict=True)
    return sorted(found, key=lambda row: (-row[0], row[1]))
