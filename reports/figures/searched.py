"""How the search got from all candidates to the priced ones: what each rule removed."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, count, name_of, percent, sentence_case


def draw(search: Json) -> go.Figure:
    """Bars of `dropped`, between the candidates searched and those left legal and priced."""
    dropped = dict(sorted(search["dropped"].items(), key=lambda item: -item[1]))
    drawn = theme.figure("What each rule removed", "candidates", "")
    kept = {"searched": search["searched"], "legal": search["legal"], "priced": search["priced"]}
    table = [("searched", kept["searched"]), *dropped.items(), ("legal", kept["legal"]), ("priced", kept["priced"])]
    rules = range(1, 1 + len(dropped))
    groups = (("Candidates", "blue", [0, len(table) - 2, len(table) - 1]), ("Removed by a rule", "orange", list(rules)))
    for name, colour, picked in groups:
        drawn.add_bar(
            name=name, orientation="h", marker_color=theme.colour(colour), x=[table[i][1] for i in picked], y=picked,
            customdata=[[theme.plain(name_of(table[i][0], {})), count(table[i][1])] for i in picked],
            hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
        )  # fmt: skip
    theme.rows(drawn, [theme.row_label(sentence_case(name_of(name, {})), count(n)) for name, n in table])
    drawn.update_xaxes(rangemode="tozero", tickformat="~s", nticks=6)
    return drawn


def read(search: Json) -> str:
    """How many were tried, kept, and which rule removed most."""
    tried = f"{count(search['searched'])} candidates were tried and {count(search['priced'])} priced"
    if not search["dropped"]:
        return f"{tried}; no rule removed any."
    rule, removed = max(search["dropped"].items(), key=lambda item: item[1])
    share = percent(removed / search["searched"])
    return f"{tried}; the rule “{name_of(rule, {})}” removed most, {count(removed)} ({share})."
