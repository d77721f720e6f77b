"""HTML that escapes by default: `tag` builds an element, and only an `Html` value goes in as it is."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

VOID = ("meta", "br", "hr")


class Html(str):
    """Text that is already HTML."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """Any value as HTML: an `Html` unchanged, everything else escaped."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(parts: Iterable[object]) -> Html:
    """The parts one after the other, each escaped unless it is `Html`."""
    return Html("".join(escaped(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element; `class_` is written class, `_` in a name becomes `-`, an attribute None is left out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{shown}>" if name in VOID else f"<{name}{shown}>{join(children)}</{name}>")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], label: str, numeric: Iterable[int] = ()) -> Html:
    """A table that scrolls inside its frame on a narrow screen; columns in `numeric` are aligned right."""
    right = set(numeric)

    def align(column: int) -> str | None:
        return "number" if column in right else None

    header = tag("tr", *(tag("th", text, scope="col", class_=align(i)) for i, text in enumerate(head)))
    body = [tag("tr", *(tag("td", cell, class_=align(i)) for i, cell in enumerate(row))) for row in rows]
    inner = tag("table", tag("caption", label), tag("thead", header), tag("tbody", *body))
    return tag("div", inner, class_="table", tabindex=0, role="region", aria_label=label)


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """A list of terms and their values."""
    return tag("dl", *(tag("div", tag("dt", term), tag("dd", value)) for term, value in pairs), class_="facts")


def folded(summary: str, content: Html) -> Html:
    """Content that opens on a click."""
    return tag("details", tag("summary", summary), content)


def banner(*children: object) -> Html:
    """The head of a page."""
    return tag("header", tag("div", *children))


def prose(sentences: Iterable[object]) -> Html:
    """A list of sentences."""
    return tag("ul", *(tag("li", sentence) for sentence in sentences), class_="prose", role="list")


def tile(label: str, figure: str, detail: str) -> Html:
    """One big figure with its name above and its context below."""
    return tag(
        "div",
        tag("dt", label),
        tag("dd", tag("div", figure, class_="figure"), tag("div", detail, class_="detail")),
        class_="tile",
    )
