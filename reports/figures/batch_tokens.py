"""What the batch costs: tokens and steps to the same loss against the batch, over the least of each."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, count

STEEPEST = 16.0  # times the least; beyond it nobody trains


def drawable(plan: Json) -> bool:
    """Whether the plan states a critical batch."""
    return bool(plan.get("batch") and plan["batch"]["curve"])


def draw(plan: Json) -> go.Figure:
    """Tokens rise and steps fall with the batch; they cross at the critical one. The plan's own batch is a star."""
    batch = plan["batch"]
    drawn = theme.figure("Tokens and steps against the batch", "tokens in a step", "times the least of each", 400)
    for name, key, colour in (("Tokens", "tokens", "blue"), ("Steps", "steps", "orange")):
        rows = [row for row in batch["curve"] if row[f"{key}_over_least"] <= STEEPEST]
        drawn.add_scatter(
            name=name, mode="lines+markers", x=[row["batch"] for row in rows],
            y=[row[f"{key}_over_least"] for row in rows],
            line={"color": theme.colour(colour), "width": 2}, marker={"color": theme.colour(colour), "size": 7},
            customdata=[[count(row["batch"]), count(row[key])] for row in rows],
            hovertemplate=f"steps of %{{customdata[0]}} tokens<br>{key}: %{{customdata[1]}}<extra></extra>",
        )  # fmt: skip
    run = batch["run"]
    drawn.add_scatter(
        name="This plan", mode="markers", x=[run["batch"]], y=[run["tokens_over_least"]],
        marker={"color": theme.colour("green"), "size": 17, "symbol": "star",
                "line": {"color": theme.colour("surface"), "width": 1.5}},
        customdata=[[count(run["batch"]), count(run["tokens"])]],
        hovertemplate="this plan: steps of %{customdata[0]} tokens<br>tokens: %{customdata[1]}<extra></extra>",
    )  # fmt: skip
    drawn.add_vline(
        x=batch["critical_batch"], line={"color": theme.colour("ink"), "width": 1.5, "dash": "dash"},
    )  # fmt: skip
    drawn.update_xaxes(type="log", exponentformat="B", tickangle=0, dtick=1)
    drawn.update_yaxes(range=[0, STEEPEST])
    return drawn


def read(plan: Json) -> str:
    """The plan's place on the curve."""
    batch, run = plan["batch"], plan["batch"]["run"]
    where = f"{run['batch'] / batch['critical_batch']:.2g} times the critical batch of {count(batch['critical_batch'])}"
    return (
        f"With steps of {count(run['batch'])} tokens, {where}, the run takes {count(run['tokens'])} tokens, "
        f"{run['tokens_over_least']:.2f} times as many as very small batches would."
    )
