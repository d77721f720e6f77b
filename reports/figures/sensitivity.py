"""What the step time depends on: each input 10 % lower and 10 % higher."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, change, sentence_case

VISIBLE = 0.0005  # a change that rounds to 0.0 % is no bar


def draw(plan: Json) -> go.Figure:
    """Tornado of `sensitivity`, the widest row on top; inputs that change nothing are left out."""
    moving = [row for row in plan["sensitivity"] if reach(row) >= VISIBLE] or plan["sensitivity"]
    table = sorted(moving, key=lambda row: -reach(row))
    drawn = theme.figure("What the step time depends on", "change of step time (%)", "")
    for name, key, colour in (("Input 10 % lower", "minus", "orange"), ("Input 10 % higher", "plus", "blue")):
        drawn.add_bar(
            name=name, orientation="h", x=[100 * row[key] for row in table], y=list(range(len(table))),
            marker_color=theme.colour(colour),
            customdata=[[theme.plain(row["label"]), theme.plain(row["input"]), change(row[key])] for row in table],
            hovertemplate=f"{name}: %{{customdata[0]}} (%{{customdata[1]}})"
                          "<br>step time %{customdata[2]}<extra></extra>",
        )  # fmt: skip
    drawn.add_vline(x=0, line={"color": theme.colour("muted"), "width": 1})
    labels = [
        theme.row_label(sentence_case(row["label"]), f"{change(row['minus'])} / {change(row['plus'])}") for row in table
    ]
    theme.rows(drawn, labels)
    drawn.update_layout(barmode="overlay")
    return drawn


def reach(row: Json) -> float:
    """The larger of the two changes of a row."""
    return max(abs(float(row["minus"])), abs(float(row["plus"])))


def read(plan: Json) -> str:
    """The input that moves the step most, both ways."""
    top = max(plan["sensitivity"], key=reach)
    effect = f"{change(top['plus'])} step time when it is 10 % higher, {change(top['minus'])} when 10 % lower"
    return f"The step depends most on {top['label']}: {effect}."
