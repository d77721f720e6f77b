"""One self-contained HTML document: style, plotly.js once, the figures as data, and the script that draws them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from reports import theme
from reports.figures import FIGURES
from reports.markup import Html, join, tag
from reports.words import Json

ASSETS = Path(__file__).parent / "assets"
UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def embedded(data: object) -> Html:
    """JSON that can stand inside a script element whatever strings it holds."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escape in UNSAFE.items():
        text = text.replace(character, escape)
    return Html(text)


def figure_block(name: str, artefact: Json) -> Html:
    """The figure `name` with its title, its one-sentence reading and an accessible label; empty when not drawable."""
    drawing = FIGURES[name]
    if not drawing.drawable(artefact):
        return Html("")
    spec: dict[str, Any] = json.loads(drawing.draw(artefact).to_json())
    title = spec["layout"].pop("title")["text"]
    spec["layout"]["margin"] = {"t": 12}
    reading = drawing.read(artefact)
    return tag(
        "figure",
        tag("h3", Html(title)),
        tag("p", reading, class_="reading"),
        tag("div", class_="plot", role="img", aria_label=f"{title}. {reading}",
            style=f"height:{spec['layout']['height']}px"),
        tag("script", embedded(spec), type="application/json"),
        id=f"figure-{name}",
        class_="card",
    )  # fmt: skip


def figures(names: tuple[str, ...], artefact: Json | None) -> Html:
    """Those of the figures that the artefact can draw, side by side where there is room."""
    blocks = [figure_block(name, artefact) for name in names] if artefact else []
    shown = [block for block in blocks if block]
    return tag("div", *shown, class_="figures") if shown else Html("")


def section(key: str, title: str, *content: object) -> Html:
    """A titled section; empty when it has no content."""
    body = join(content)
    return tag("section", tag("h2", title), body, id=key) if body else Html("")


def document(title: str, header: Html, sections: tuple[tuple[str, str, Html], ...], version: str) -> str:
    """The whole page; sections are (key, title, content), those without content are left out of page and menu."""
    shown = [row for row in sections if row[2]]
    menu = tag("nav", *(tag("a", name, href=f"#{key}") for key, name, _ in shown), aria_label="Sections")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"myriad-planner {version}"),
        tag("title", title),
        tag("style", Html(variables() + _asset("page.css"))),
    )
    body = tag(
        "body",
        header,
        menu,
        tag("noscript", tag("p", "The figures need JavaScript; all text and tables do not.", class_="note")),
        tag("main", *(section(*row) for row in shown)),
        tag("footer", f"myriad-planner {version}. This file is complete: it loads nothing from any network."),
        tag("script", embedded(theme.dark_twins()), type="application/json", id="dark-twins"),
        tag("script", Html(get_plotlyjs())),
        tag("script", Html(_asset("page.js"))),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def variables() -> str:
    """The colour names as CSS variables: light, dark by the reader's system, light again on paper."""

    def block(scheme: dict[str, str]) -> str:
        return ":root{" + "".join(f"--{name.replace('_', '-')}:{value};" for name, value in scheme.items()) + "}"

    dark = f"@media screen and (prefers-color-scheme:dark){{{block(theme.DARK)}}}"
    return f"{block(theme.LIGHT)}{dark}:root{{--font:{theme.FONT}}}\n"


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
