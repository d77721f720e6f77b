"""One look for every figure and page: named colours in two schemes, the system's fonts, one plotly template.

Figures are drawn in LIGHT; the page's script swaps each colour for its DARK twin when the reader's system is dark.
The seven series colours stay apart under protanopia, deuteranopia and tritanopia (tests/reports/test_theme.py).
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

LIGHT: Final = {
    "page": "#f5f7fa", "surface": "#ffffff", "band": "#0e2239", "band_ink": "#f6f9fc", "band_muted": "#b4c4d6",
    "ink": "#15202c", "muted": "#566575", "rule": "#dfe5ec", "grid": "#e8edf2", "accent": "#1f57cf",
    "blue": "#2159d6", "orange": "#e0671c", "green": "#0b6350", "red": "#9c2f14", "sky": "#2494d8",
    "purple": "#96348e", "grey": "#87919e",
}  # fmt: skip
DARK: Final = {
    "page": "#0c1117", "surface": "#141b23", "band": "#0a1a2d", "band_ink": "#f4f8fb", "band_muted": "#a6b9cd",
    "ink": "#e7edf3", "muted": "#9fadbb", "rule": "#29333e", "grid": "#232d37", "accent": "#8fb4fa",
    "blue": "#4b7cec", "orange": "#eba832", "green": "#42d890", "red": "#d5483a", "sky": "#98c3f5",
    "purple": "#aa5ba4", "grey": "#a0a8b0",
}  # fmt: skip
SERIES: Final = ("blue", "orange", "green", "purple", "sky", "red", "grey")
SYMBOLS: Final = ("circle", "diamond", "square", "triangle-up", "cross", "star", "pentagon")
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
FONT: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def colour(name: str) -> str:
    """The hex of a named colour in the scheme that figures are drawn in."""
    return LIGHT[name]


def series(index: int) -> str:
    """The colour of the `index`-th series (they repeat after seven; symbols and dashes differ too)."""
    return LIGHT[SERIES[index % len(SERIES)]]


def dark_twins() -> dict[str, str]:
    """Light hex -> dark hex, for the page's script."""
    return {LIGHT[name]: DARK[name] for name in LIGHT}


def plain(text: object) -> str:
    """Any text made safe for plotly, which reads a subset of HTML in titles, ticks and hover."""
    return html.escape(str(text), quote=False)


def row_label(name: str, value: str, width: int = 24) -> str:
    """A row's tick label: its name (wrapped) above its value in a quieter colour."""
    lines = [plain(line) for line in textwrap.wrap(name, width)] or [""]
    return "<br>".join([*lines, f'<span style="color:{LIGHT["muted"]}">{plain(value)}</span>'])


def template() -> go.layout.Template:
    """Transparent ground, system font, quiet grid, legend under the plot."""
    axis = {
        "gridcolor": LIGHT["grid"], "linecolor": LIGHT["rule"], "zerolinecolor": LIGHT["rule"], "automargin": True,
        "ticks": "outside", "ticklen": 6, "tickcolor": "rgba(0,0,0,0)",
        "title": {"standoff": 12, "font": {"color": LIGHT["muted"], "size": 12}}, "fixedrange": True,
        "zeroline": False,
    }  # fmt: skip
    layout = go.Layout(
        font={"family": FONT, "size": 12, "color": LIGHT["ink"]},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        colorway=[LIGHT[name] for name in SERIES],
        title={"x": 0, "xref": "paper", "font": {"size": 16}},
        margin={"l": 8, "r": 16, "t": 48, "b": 8},
        hoverlabel={"bgcolor": LIGHT["surface"], "bordercolor": LIGHT["rule"],
                    "font": {"family": FONT, "size": 12, "color": LIGHT["ink"]}, "align": "left"},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom",
                "xref": "container", "x": 0, "xanchor": "left", "traceorder": "normal",
                "font": {"color": LIGHT["muted"]}},
        xaxis=axis,
        yaxis=axis,
        dragmode=False,
        bargap=0.35,
    )  # fmt: skip
    return go.layout.Template(layout=layout)


def figure(title: str, x: str, y: str, height: int = 380) -> go.Figure:
    """An empty figure with its title and axis titles (with units)."""
    layout = go.Layout(template=template(), title={"text": plain(title)}, height=height)
    drawn = go.Figure(layout=layout)
    drawn.update_xaxes(title_text=plain(x) or None)
    drawn.update_yaxes(title_text=plain(y) or None)
    return drawn


def rows(drawn: go.Figure, labels: Sequence[str]) -> go.Figure:
    """Turn the y axis into one row per label, the first on top, and fit the height to them."""
    drawn.update_yaxes(
        tickvals=list(range(len(labels))),
        ticktext=list(labels),
        range=[len(labels) - 0.45, -0.55],
        showgrid=False,
    )
    drawn.update_traces(width=0.62, selector={"type": "bar"})
    lines = 1 + max(label.count("<br>") for label in labels)
    drawn.update_layout(height=120 + (14 + 15 * lines) * len(labels))
    return drawn
