"""The parts of the accuracy page: what the errors come to, every part of them, the worst rows, what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import Final

from reports.figures.predicted_measured import KINDS, worst_rows
from reports.markup import Html, banner, folded, join, prose, table, tag, tile
from reports.words import TIMES, Json, change, name_of, percent, seconds, sentence_case

PARTS: Final = (
    ("sets", "Set", "Step time by set of runs"), ("by_kind", "Model", "Step time by kind of model"),
    ("by_precision", "Format", "Step time by number format"), ("by_scale", "GPUs", "Step time by number of GPUs"),
    ("by_gpu", "GPU", "Step time by GPU"), ("by_source", "Source", "Step time by source"),
)  # fmt: skip
HEADERS: Final = ("runs", "median", "mean", "90th percentile", "bias", "inside the 90 % interval")
KEYS: Final = ("median_abs_error", "mean_abs_error", "p90_abs_error")


def header(accuracy: Json) -> Html:
    """How far off the step time is, and how often the interval holds."""
    summary = accuracy["summary"]
    time, memory = summary["time"], summary["memory"]
    tiles = [
        tile("Median error", _share(time["median_abs_error"]), f"of the step time, {time['n']:,} runs"),
        tile("Mean error", _share(time["mean_abs_error"]), f"90th percentile {_share(time['p90_abs_error'])}"),
        tile("In the 90 % interval", _share(time["coverage_90"]), "of the measured step times"),
    ]
    if memory["n"]:
        tiles.append(tile("Peak memory", _share(memory["median_abs_error"]), f"median error, {memory['n']:,} runs"))
    ranking, scaling = summary["ranking"], summary["scaling"]
    if ranking["mean_tau"] is not None:
        told = f"mean of {ranking['n']} groups; 1 is the measured order"
        tiles.append(tile("Kendall's tau of layouts", f"{ranking['mean_tau']:.2f}", told))
    if scaling["n"]:
        told = f"of {scaling['n']} series within {scaling['tolerance']}"
        tiles.append(tile("Slope over GPUs", _share(scaling["within_tolerance"]), told))
    runs = PurePath(accuracy["provenance"][0]["name"]).name
    return banner(
        tag("p", "Accuracy", class_="eyebrow"),
        tag("h1", "Predicted against measured"),
        tag("p", f"{len(accuracy['rows']):,} published runs of {runs}", class_="context"),
        tag("dl", *tiles, class_="tiles"),
    )


def parts(accuracy: Json) -> Html:
    """One table for each way to part the runs; peak memory in one of its own."""
    summary, found = accuracy["summary"], []
    for key, name, caption in PARTS:
        each = {part: (row["time"] if key == "sets" else row) for part, row in summary[key].items()}
        rows = [(_named(part, key), *_errors(row)) for part, row in each.items() if row["n"]]
        if rows:
            found.append(table((name, *HEADERS), rows, caption, range(1, 7)))
    memory = [("all", summary["memory"]), *((name, row["memory"]) for name, row in summary["sets"].items())]
    rows = [(_named(name, "sets"), *_errors(row)[:-1]) for name, row in memory if row["n"]]
    if rows:
        found.append(table(("Set", *HEADERS[:-1]), rows, "Peak memory by set of runs", range(1, 6)))
    return join(found)


def worst(accuracy: Json) -> Html:
    """The rows with the largest errors, by name, and what their predicted step is spent on."""
    rows = [
        (
            row["id"],
            seconds(row["measured_step_s"]),
            seconds(row["predicted_step_s"]),
            change(row["error"]),
            "inside" if row["interval_s"][0] <= row["measured_step_s"] <= row["interval_s"][1] else "outside",
            _spent(row),
        )
        for row in worst_rows(accuracy)
    ]
    head = ("Run", "measured", "predicted", "error", "90 % interval", "predicted to be mostly")
    return table(head, rows, "Largest errors of the step time", range(1, 4)) if rows else Html("")


def ranking(accuracy: Json) -> Html:
    """Every group of layouts."""
    groups = accuracy["summary"]["ranking"]["groups"]
    rows = [
        (
            group["name"],
            f"{group['layouts']}",
            "no order" if group["tau"] is None else f"{group['tau']:.2f}",
            percent(group["regret"]),
            group["chosen"],
        )
        for group in groups
    ]
    head = ("Group", "layouts", "tau", "regret", "predicted to be the fastest")
    shown = table(head, rows, "Ranking of layouts, group by group", range(1, 4))
    return folded(f"All {len(groups)} groups", shown) if groups else Html("")


def scaling(accuracy: Json) -> Html:
    """Every series over GPUs."""
    groups = accuracy["summary"]["scaling"]["groups"]
    rows = [
        (
            f"{group['name']}, {group['model']}",
            f"{group['gpus'][0]:,} to {group['gpus'][1]:,}",
            f"{group['measured_slope']:.3f}",
            f"{group['predicted_slope']:.3f}",
            f"{group['error']:+.3f}",
        )
        for group in sorted(groups, key=lambda group: -abs(group["error"]))
    ]
    head = ("Series", "GPUs", "measured slope", "predicted slope", "difference")
    shown = table(head, rows, "Slopes of log tokens/s over log GPUs", range(1, 5))
    return folded(f"All {len(groups)} series", shown) if groups else Html("")


def refused(accuracy: Json) -> Html:
    """Why rows are not predicted."""
    reasons = Counter(str(row["reason"]) for row in accuracy["rows"] if row["status"] == "unsupported")
    rows = [(reason, f"{count:,}") for reason, count in reasons.most_common()]
    return table(("Reason", "rows"), rows, "Rows that are refused", (1,)) if rows else Html("")


def method() -> Html:
    """What the figures mean."""
    return tag("div", prose((
        "An error is predicted over measured, minus 1; bias is its signed median, all other figures are absolute.",
        "The 90 % interval comes from runs whose whole source was left out of the fit.",
        "Ranked together are runs of one source, software, model, batch, sequence length and format on the same GPUs.",
        "A layout that was measured several times counts once, by the median.",
        "Regret is the measured time of the layout predicted to be the fastest over the fastest measured, minus 1.",
        "A slope is fitted to log tokens/s over log GPUs of one series and model, the fastest run of each size.",
        "A slope of 1 is perfect scaling, whether the work per GPU or the whole batch is held.",
    )), class_="card")  # fmt: skip


def _errors(found: Json) -> tuple[str, ...]:
    shares = (*(_share(found[key]) for key in KEYS), "-" if found["bias"] is None else change(found["bias"]))
    return (f"{found['n']:,}", *shares, _share(found.get("coverage_90")))


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _named(part: str, key: str) -> str:
    """A part as people read it; names of GPUs, formats and sources stay as they are."""
    if key == "by_scale":
        return part.replace("-", " ", 1) if part.startswith("over") else part.replace("-", " to ")
    return sentence_case(KINDS.get(part, part.replace("_", " "))) if key in ("sets", "by_kind") else part


def _spent(row: Json) -> str:
    """The two largest parts of a predicted step."""
    ordered = sorted(row["time"].items(), key=lambda item: -float(item[1]))[:2]
    return ", ".join(f"{name_of(name, TIMES)} {percent(value / row['predicted_step_s'])}" for name, value in ordered)
