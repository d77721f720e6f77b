"""The parts of the page of compressed models: what stands first, and every number."""

from __future__ import annotations

from reports.figures.before_after import read, told
from reports.markup import Html, banner, join, table, tag
from reports.words import Json, scaled, seconds


def header(compared: Json) -> Html:
    """What is compared, and the smallest against the first in one sentence."""
    first = compared["rows"][0]
    return banner(
        tag("p", "Before and after compression", class_="eyebrow"),
        tag("h1", first["model"]),
        tag("p", f"{len(compared['rows'])} exported models on the same held-out data", class_="context"),
        tag("p", read(compared), class_="lead"),
    )


def numbers(compared: Json) -> Html:
    """Every model with its metric, sizes and latency, and how the latency was taken."""
    metric = compared["metric"]
    head = ("model", "weights", metric, "values", "stored", "file", "latency of a batch")
    rows = [
        (
            row["name"],
            row["form"],
            told(row, metric),
            f"{row['parameters']:,}",
            scaled(row["stored_bytes"], "B"),
            scaled(row["disk_bytes"], "B"),
            seconds(row["latency"]["seconds"]),
        )
        for row in compared["rows"]
    ]
    how = compared["measured"]
    state = "the machine was quiet" if how["quiet"] else "the machine was not quiet, so read latencies with care"
    note = f"Latency by the wall clock on {how['threads']} thread(s); {state}."
    return join((table(head, rows, "Every model", range(2, len(head))), tag("p", note, class_="note")))
