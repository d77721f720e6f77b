"""The trials of a search of hyper-parameters: what each rung of successive halving found at which learning rate."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json

WORDS = {"learning_rate": "learning rate", "weight_decay": "weight decay", "batch": "batch (samples)"}
SYMBOLS = ("circle-open", "diamond-open", "square", "circle")


def draw(tuning: Json) -> go.Figure:
    """Validation loss over the first value that was searched, one series a rung; the best a star."""
    name = _axis(tuning)
    drawn = theme.figure("Trials of the search", WORDS[name], "validation loss (nats)", 400)
    rungs = sorted({trial["steps"] for trial in tuning["trials"]})
    for index, steps in enumerate(rungs):
        rung = [trial for trial in tuning["trials"] if trial["steps"] == steps and trial["loss"] is not None]
        drawn.add_scatter(
            name=f"{steps:,} steps", mode="markers", x=[trial["values"][name] for trial in rung],
            y=[trial["loss"] for trial in rung], customdata=[_told(trial) for trial in rung],
            marker={"color": theme.series(index), "size": 9, "symbol": SYMBOLS[index % len(SYMBOLS)]},
            hovertemplate="%{customdata}<br>validation loss %{y:.4f}<extra></extra>",
        )  # fmt: skip
    best = tuning["best"]
    drawn.add_scatter(
        name="Best", mode="markers", x=[best["values"][name]], y=[best["loss"]], customdata=[_told(best)],
        marker={"color": theme.colour("orange"), "size": 17, "symbol": "star"},
        hovertemplate="best: %{customdata}<br>validation loss %{y:.4f}<extra></extra>",
    )  # fmt: skip
    if name != "batch":
        drawn.update_xaxes(type="log")
    return drawn


def read(tuning: Json) -> str:
    """The best trial, beside the best of the first rung."""
    best, trials = tuning["best"], tuning["trials"]
    first = min(trial["steps"] for trial in trials)
    failed = sum(trial["loss"] is None for trial in trials)
    text = (
        f"Of {sum(trial['steps'] == first for trial in trials)} trials the best, {_told(best)}, reaches a validation "
        f"loss of {best['loss']:.3f} in {best['steps']:,} steps"
    )
    return f"{text}; {failed} did not come to an end." if failed else f"{text}."


def _axis(tuning: Json) -> str:
    return next(name for name in WORDS if name in tuning["searched"])


def _told(trial: Json) -> str:
    return ", ".join(f"{WORDS[name]} {value:g}" for name, value in trial["values"].items())
