"""The tables of `plan validate`: errors of all rows and of parts of them, ranking, scaling, worst rows, refusals."""

from __future__ import annotations

from collections import Counter

from planner.commands.output import Sheet
from planner.plan import Json

WORST, MOST = 15, 20  # rows of the tables of single runs and groups
PERCENT = 100.0
HEADERS = ("n", "median", "mean", "P90", "bias", "in the 90 % interval")
PARTS = (
    ("by_kind", "By kind of model", "kind"),
    ("by_precision", "By number format", "format"),
    ("by_scale", "By number of GPUs", "GPUs"),
    ("by_gpu", "By GPU", "GPU"),
    ("by_source", "By source", "source"),
)
NAMES = {
    "moe": "mixture of experts", "small": "dense, below 1.5e9 parameters",
    "513-2048": "513-2,048", "over-2048": "over 2,048",
}  # fmt: skip


def sheets(data: Json) -> list[Sheet]:
    """All tables; those without rows are left out."""
    summary = data["summary"]
    total = [_errors("step time", summary["time"]), _errors("peak memory", summary["memory"])]
    found = [Sheet("Predicted against measured, absolute relative error", ("all rows", *HEADERS), total)]
    found.append(_sets(summary["sets"]))
    for key, title, name in PARTS:
        rows = [_errors(NAMES.get(part, part), errors) for part, errors in summary[key].items() if errors["n"]]
        found.append(Sheet(f"Step time. {title}", (name, *HEADERS), rows))
    found += [_ranking(summary["ranking"]), _scaling(summary["scaling"]), _worst(data["rows"]), _refused(data["rows"])]
    return [sheet for sheet in found if sheet.rows]


def dominant(row: Json, parts: int = 2) -> str:
    """The largest parts of a predicted step with their shares: "compute 61 %, expert 22 %"."""
    ordered = sorted(row["time"].items(), key=lambda item: -item[1])[:parts]
    return ", ".join(f"{name} {PERCENT * value / row['predicted_step_s']:.0f} %" for name, value in ordered)


def _sets(sets: Json) -> Sheet:
    """The sets that the rows themselves name."""
    rows = []
    for name, found in sets.items():
        told = f"{name.replace('_', ' ')} ({found['unsupported']} of {found['rows']} refused)"
        rows.append(_errors(told, found["time"]))
        rows += [
            _errors(f"  {part}", errors)
            for part, errors in (("mixtures of experts", found["mixtures"]), ("peak memory", found["memory"]))
            if errors["n"]
        ]
    return Sheet("Sets", ("set", *HEADERS), rows)


def _ranking(found: Json) -> Sheet:
    """Kendall's tau by source, and of the largest groups."""
    sources = [_ranked(name, part) for name, part in found["by_source"].items()]
    groups = sorted(found["groups"], key=lambda group: (-group["layouts"], group["name"]))[:MOST]
    rows = [
        _ranked("all, mean", found),
        *sources,
        *((_group(g), f"{g['layouts']} layouts", _tau(g["tau"]), _percent(g["regret"])) for g in groups),
    ]
    pairs, clear = found["pairs"], found["clear_pairs"]
    what = (
        "Kendall's tau between predicted and measured step time, over layouts of one model, batch and format on the"
        " same GPUs; regret is the measured time of the layout predicted to be the fastest over the fastest, minus 1."
    )
    order = (
        f"Of {pairs['n']:,} pairs of layouts {_percent(pairs['in_order'])} are predicted in the measured order, of the"
        f" {clear['n']:,} more than 3 % apart {_percent(clear['in_order'])}."
    )
    return Sheet("Ranking", ("of", "over", "tau", "regret"), rows if found["n"] else [], notes=[what, order])


def _group(group: Json) -> str:
    return f"  {group['model']}, batch {group['global_batch']:,}, {group['gpus']:,} {group['gpu']}"


def _ranked(name: str, found: Json) -> tuple[str, ...]:
    return (name, f"{found['n']} groups", _tau(found["mean_tau"]), _percent(found["mean_regret"]))


def _scaling(found: Json) -> Sheet:
    """Slopes of tokens per second over GPUs, the worst first."""
    groups = sorted(found["groups"], key=lambda group: -abs(group["error"]))[:MOST]
    rows = [
        (
            f"{group['name']}, {group['model']}",
            f"{group['gpus'][0]:,} - {group['gpus'][1]:,}",
            f"{group['measured_slope']:.3f}",
            f"{group['predicted_slope']:.3f}",
            f"{group['error']:+.3f}",
        )
        for group in groups
    ]
    notes = []
    if found["n"]:
        within, most = _percent(found["within_tolerance"]), found["tolerance"]
        notes.append(
            f"Slope of log tokens/s over log GPUs (1 is perfect scaling), the worst first. Of {found['n']} series:"
            f" median difference {found['median_abs_error']:.3f}, mean {found['mean_abs_error']:.3f}; {within} within"
            f" {most}."
        )
    return Sheet("Scaling", ("series", "GPUs", "measured", "predicted", "difference"), rows, notes=notes)


def _worst(results: list[Json]) -> Sheet:
    """The rows with the largest errors, and what their predicted step is spent on."""
    priced = [row for row in results if row["error"] is not None]
    rows = [
        (
            row["id"],
            f"{row['measured_step_s']:.3g} s",
            f"{row['predicted_step_s']:.3g} s",
            f"{PERCENT * row['error']:+.1f} %",
            dominant(row),
        )
        for row in sorted(priced, key=lambda row: -abs(row["error"]))[:WORST]
    ]
    return Sheet("Worst rows", ("run", "measured", "predicted", "error", "mostly"), rows)


def _refused(results: list[Json]) -> Sheet:
    """Why rows are refused, the most common reasons first."""
    reasons = Counter(str(row["reason"]) for row in results if row["status"] == "unsupported")
    rows = [(reason, str(count)) for reason, count in reasons.most_common(MOST)]
    return Sheet("Refused rows", ("reason", "rows"), rows)


def _errors(name: str, found: Json) -> tuple[str, ...]:
    keys = ("median_abs_error", "mean_abs_error", "p90_abs_error", "bias", "coverage_90")
    return (name, str(found["n"]), *(_percent(found.get(key)) for key in keys))


def _tau(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{PERCENT * value:.1f} %"
