"""The parts of the capacity page: what the sizes bring in tiles, the answers, a table of every size."""

from __future__ import annotations

from reports.figures.scaling import feasible
from reports.markup import Html, banner, join, table, tag, tile
from reports.words import Json, count, days, dollars, memory, percent, seconds, strategy_line


def header(capacity: Json) -> Html:
    """Model and workload, the answers, and one tile per cluster: its knee, or its largest size."""
    workload = capacity["workload"]
    sizes = [point["gpus"] for line in capacity["series"] for point in line["points"]]
    context = (
        f"{count(workload['tokens'])} tokens · {workload['global_batch']:,} sequences of {workload['seq_len']:,} "
        f"tokens a step · {min(sizes):,} to {max(sizes):,} GPUs"
    )
    lead = [tag("p", sentence, class_="lead") for sentence in capacity["answers"]]
    return banner(
        tag("p", "Capacity", class_="eyebrow"),
        tag("h1", f"{capacity['model']['name']}: how many GPUs?"),
        tag("p", context, class_="context"),
        *lead,
        tag("dl", *(_tile(line) for line in capacity["series"]), class_="tiles"),
    )


def _tile(line: Json) -> Html:
    points = feasible(line)
    if not points:
        return tile(line["cluster"], "does not fit", f"at none of {len(line['points'])} sizes")
    knees = [point for point in points if point["gpus"] == line["knee"]]
    point = knees[0] if knees else points[-1]
    place = "the knee: each further GPU brings less" if knees else "its largest size that fits"
    detail = f"{days(point['days'])} · {dollars(point['cost_usd'])} · MFU {percent(point['mfu'])}"
    return tile(line["cluster"], f"{point['gpus']:,} GPUs", join((detail, tag("br"), place)))


def sizes(capacity: Json) -> Html:
    """One table per cluster, sizes that do not fit with their reason."""
    head = ("GPUs", "Time to train", "Cost", "Tokens per day", "MFU", "Headroom", "Step time", "Strategy")
    return join(
        table(head, [_row(point) for point in line["points"]], line["cluster"], numeric=range(7))
        for line in capacity["series"]
    )


def _row(point: Json) -> tuple[object, ...]:
    gpus = f"{point['gpus']:,}"
    if not point["feasible"]:
        return (gpus, *[tag("span", "–", class_="none")] * 6, tag("span", point["reason"], class_="none"))
    return (
        gpus,
        days(point["days"]),
        dollars(point["cost_usd"]),
        count(point["tokens_per_day"]),
        percent(point["mfu"]),
        memory(point["memory_headroom"]),
        seconds(point["step_time_s"]),
        strategy_line(point["strategy"]),
    )
