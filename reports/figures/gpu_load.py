"""Load of the GPUs before and after, against the balance that chance alone gives."""

from __future__ import annotations

import plotly.graph_objects as go

from reports import theme
from reports.words import Json, sentence_case


def draw(placement: Json) -> go.Figure:
    """Load of each GPU over the mean, fullest first, of two placements; the noise floor is a line."""
    shown = placement["statistics"]
    drawn = theme.figure("Load of the GPUs", "GPU, fullest first", "load over the mean of the GPUs", 400)
    for name, key, colour, dash in (
        (sentence_case(shown["before"]), "before", "grey", "dot"),
        ("This placement", "after", "blue", "solid"),
    ):
        load = sorted(shown["gpu_load"][key], reverse=True)
        drawn.add_scatter(
            name=theme.plain(name), mode="lines", x=list(range(1, len(load) + 1)), y=load,
            line={"color": theme.colour(colour), "width": 2.5, "dash": dash, "shape": "hvh"},
            hovertemplate=f"{theme.plain(name)}: %{{y:.3f}} times the mean<extra></extra>",
        )  # fmt: skip
    floor = shown["noise_floor"]
    drawn.add_hline(y=floor, line={"color": theme.colour("orange"), "width": 1.5, "dash": "dash"})
    drawn.add_annotation(
        x=1, xref="paper", xanchor="right", y=floor, yanchor="bottom", showarrow=False,
        text=f"noise floor {floor:.3f}", bgcolor=theme.colour("surface"),
    )  # fmt: skip
    return drawn


def read(placement: Json) -> str:
    """The fullest GPU of both, and whether more balance could be told from noise."""
    shown = placement["statistics"]
    before, after = (max(shown["gpu_load"][key]) for key in ("before", "after"))
    floor = shown["noise_floor"]
    told = f"The fullest GPU gets {after:.3f} times the mean ({shown['before']}: {before:.3f})"
    if after <= floor:
        return f"{told}; {shown['tokens']:,} tokens can't tell that from even loads, which reach {floor:.3f} by chance."
    return f"{told}; even loads would reach {floor:.3f} by chance with {shown['tokens']:,} tokens."
