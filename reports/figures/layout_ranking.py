"""How well the layouts of each model are ranked: Kendall's tau of every group of runs that differ in layout alone."""

from __future__ import annotations

from typing import Final

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, percent

GOAL: Final = 0.8


def draw(accuracy: Json) -> go.Figure:
    """A mark for each group: layouts across, tau up; one series a source."""
    groups = [group for group in accuracy["summary"]["ranking"]["groups"] if group["tau"] is not None]
    drawn = theme.figure("Ranking of layouts", "layouts in the group", "Kendall's tau, predicted against measured", 420)
    for index, source in enumerate(sorted({group["source"] for group in groups})):
        mine = [group for group in groups if group["source"] == source]
        drawn.add_scatter(
            name=theme.plain(source), mode="markers", x=[group["layouts"] for group in mine],
            y=[group["tau"] for group in mine], opacity=0.8,
            marker={"symbol": theme.SYMBOLS[index % len(theme.SYMBOLS)], "size": 9, "color": theme.series(index)},
            customdata=[_told(group) for group in mine],
            hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>tau %{y:.2f}, regret %{customdata[2]}"
            "<extra></extra>",
        )  # fmt: skip
    drawn.add_hline(y=GOAL, line={"color": theme.colour("grey"), "width": 1.5, "dash": "dash"})
    drawn.add_annotation(
        x=1, xref="paper", xanchor="right", y=GOAL, yanchor="bottom", showarrow=False, text=f"goal {GOAL}",
        bgcolor=theme.colour("surface"),
    )  # fmt: skip
    drawn.update_yaxes(range=[min(-0.1, *(group["tau"] - 0.1 for group in groups)), 1.08])
    drawn.update_xaxes(rangemode="tozero")
    return drawn


def read(accuracy: Json) -> str:
    """The means over the groups, and the pairs in order."""
    found = accuracy["summary"]["ranking"]
    return (
        f"Over {found['n']} groups of layouts tau is {found['mean_tau']:.2f} in the mean; the layout predicted to be "
        f"the fastest loses {percent(found['mean_regret'])} against the fastest measured; of the pairs more than 3 % "
        f"apart {percent(found['clear_pairs']['in_order'])} are predicted in order."
    )


def drawable(accuracy: Json) -> bool:
    """Whether a group has an order, and a pair that is clearly apart."""
    found = accuracy["summary"].get("ranking") or {}
    return found.get("mean_tau") is not None and bool(found["clear_pairs"]["n"])


def _told(group: Json) -> list[str]:
    model = f"{group['model']} on {group['gpus']:,} {group['gpu']}"
    return [theme.plain(model), f"batch {group['global_batch']:,}", percent(group["regret"])]
