"""The parts of a plan's page on its training methods: what they buy, what they risk, and the batch in words."""

from __future__ import annotations

from reports.markup import Html, join, prose, table, tag
from reports.words import AXES, Json, change, dollars, flops, memory, name_of, scaled, seconds, sentence_case, setting

ROWS = (
    ("Step time", "step_time_s", seconds),
    ("Memory of the fullest GPU", "peak_memory_bytes", memory),
    ("Stored model", "stored_bytes", lambda value: scaled(value, "B")),
    ("FLOP of one update", "update_flops", flops),
    ("Time to train", "seconds", seconds),
    ("Cost", "cost_usd", dollars),
)


def methods(plan: Json) -> Html:
    """The chosen methods, the plan beside the plain one, and published findings; nothing where all is plain."""
    found = plan.get("methods")
    if not found:
        return Html("")
    chosen = "; ".join(f"{name_of(key, AXES)}: {setting(value)}" for key, value in found["chosen"].items())
    told = tag("div", tag("h3", sentence_case(chosen)), prose(found["buys"]), class_="card")
    risks = [(risk["text"], risk["source"]) for risk in found["risks"]]
    published = table(("What is published on it", "Source"), risks, "What it risks") if risks else Html("")
    none = tag("p", "No accuracy is predicted here: what is published on other models is listed.", class_="note")
    return join((told, _beside(found), none, published))


def _beside(found: Json) -> Html:
    """Figures with and without the methods."""
    plain, here = found["plain"], found["plan"]
    if not plain:
        return Html("")
    rows = [(label, show(plain[key]), show(here[key]), change(here[key] / plain[key] - 1)) for label, key, show in ROWS]
    return table(("", "Plain plan", "This plan", "Change"), rows, "What it buys", numeric=(1, 2, 3))


def batch(plan: Json) -> Html:
    """Tokens against the batch in words; nothing where the plan states no critical batch and no ramp-up."""
    found = plan.get("batch")
    return tag("div", tag("h3", "Batch and tokens"), prose(found["words"]), class_="card") if found else Html("")
