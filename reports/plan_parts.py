"""The parts of a plan's page: the answer in tiles, the strategy, tables of stages, plans and sources."""

from __future__ import annotations

from planner.explain.words import unseen
from reports.markup import Html, banner, facts, folded, join, prose, table, tag, tile
from reports.words import (
    AXES,
    Json,
    change,
    count,
    dollars,
    flops_rate,
    memory,
    name_of,
    percent,
    scaled,
    seconds,
    sentence_case,
    setting,
    span,
    strategy_line,
)

TOP_PLANS = 10


def header(plan: Json) -> Html:
    """Model, cluster and workload, then the answer in one sentence and in six tiles."""
    cluster, workload = plan["cluster"], plan["workload"]
    context = (
        f"{count(cluster['gpus'])} {cluster['gpu']} GPUs, {cluster['name']} · {cluster['precision']} · "
        f"{workload['global_batch']:,} sequences of {workload['seq_len']:,} tokens a step"
    )
    return banner(
        tag("p", "Training plan", class_="eyebrow"),
        tag("h1", plan["model"]["name"]),
        tag("p", context, class_="context"),
        tag("p", _answer(plan), class_="lead"),
        tag("dl", *_tiles(plan), class_="tiles"),
    )


def _answer(plan: Json) -> str:
    training, estimate = plan["training"], plan["estimate"]
    fit = "and it fits in memory" if estimate["fits"] else "but it does not fit in memory"
    tokens = training.get("tokens", plan["workload"]["tokens"])
    return (
        f"Training on {count(tokens)} tokens takes {seconds(training['seconds'])} and costs "
        f"{dollars(training['cost_usd'])}: one step takes {seconds(estimate['step_time_s'])}, {fit}."
    )


def _tiles(plan: Json) -> list[Html]:
    estimate, training, cluster = plan["estimate"], plan["training"], plan["cluster"]
    step, (lower, upper) = estimate["step_time_s"], estimate["interval_s"]
    whole = training["seconds"]
    used = estimate["peak_memory_bytes"] / estimate["memory_capacity_bytes"]
    rate, peak = estimate["model_flops_per_s_per_gpu"], cluster["gpu_peak_flops_per_s"]
    price = f"at ${cluster['price_usd_per_gpu_hour']:.2f} per GPU-hour"
    return [
        tile("Step time", seconds(step), f"90 % interval {span(lower, upper)}"),
        tile("Time to train", seconds(whole), span(whole * lower / step, whole * upper / step)),
        tile("Cost", dollars(training["cost_usd"]), f"{price}; {scaled(training['energy_wh'], 'Wh')}"),
        tile("Tokens per second", count(estimate["tokens_per_s"]),
             f"{estimate['tokens_per_s_per_gpu']:,.0f} per GPU; {count(training['tokens_per_day'])} a day"),
        tile("MFU", percent(estimate["mfu"]),
             f"{flops_rate(rate)} of {flops_rate(peak)} per GPU"),
        tile("Memory", memory(estimate["peak_memory_bytes"]),
             f"{percent(used)} of {memory(estimate['memory_capacity_bytes'])} on the fullest GPU"),
    ]  # fmt: skip


def binding(plan: Json) -> Html:
    """The binding constraint, set apart."""
    return tag("div", tag("h3", "What limits it"), tag("p", plan["binding"]), class_="card binding")


def words(plan: Json) -> Html:
    """The plan in words."""
    return tag("div", tag("h3", "The plan in words"), prose(plan["words"]), class_="card")


def strategy(plan: Json) -> Html:
    """Every setting of the strategy; degrees that are 1 are kept, so that nothing has to be guessed."""
    rows = [(sentence_case(name_of(key, AXES)), setting(value)) for key, value in plan["estimate"]["strategy"].items()]
    return tag("div", tag("h3", "Strategy"), facts(rows), class_="card")


def stages(plan: Json) -> Html:
    """One row per pipeline stage."""
    capacity = plan["estimate"]["memory_capacity_bytes"]
    rows = [
        (s["stage"], s["layers"], seconds(s["time_s"]), memory(s["total"]), memory(capacity - s["total"]))
        for s in plan["stages"]
    ]
    if not rows:
        return Html("")
    head = ("Stage", "Layers", "Time per micro-batch", "Memory", "Headroom")
    return folded(f"All {len(rows)} stages as a table", table(head, rows, "Pipeline stages", numeric=(2, 3, 4)))


def plans(search: Json | None) -> Html:
    """The best plans of the search, the chosen one first."""
    if not search or not search["plans"]:
        return Html("")
    rows = [
        (rank, strategy_line(e["strategy"]), e["strategy"]["recompute"], seconds(e["step_time_s"]), percent(e["mfu"]),
         memory(e["memory_capacity_bytes"] - e["peak_memory_bytes"]))
        for rank, e in enumerate(search["plans"][:TOP_PLANS], start=1)
    ]  # fmt: skip
    head = ("Rank", "Strategy", "Recompute", "Step time", "MFU", "Headroom")
    return table(head, rows, f"The {len(rows)} best plans", numeric=(3, 4, 5))


def tiers(plan: Json) -> Html:
    """The levels of the network."""
    rows = [
        (t["name"], f"{t['size']:,}", scaled(t["bandwidth"], "B/s"), seconds(t["latency"]),
         f"{t['oversubscription']:g} : 1")
        for t in plan["cluster"]["tiers"]
    ]  # fmt: skip
    head = ("Network level", "GPUs inside", "Bandwidth per GPU", "Latency", "Oversubscription")
    return table(head, rows, f"{plan['cluster']['node']} on {plan['cluster']['fabric']}", numeric=(1, 2, 3, 4))


def accuracy(plan: Json) -> Html:
    """What the interval means and what the totals leave out."""
    estimate, training = plan["estimate"], plan["training"]
    step, (lower, upper) = estimate["step_time_s"], estimate["interval_s"]
    band = f"{span(lower, upper)} ({change(lower / step - 1)} to {change(upper / step - 1)})"
    pauses = training["seconds"] / (training["steps"] * step) - 1
    totals = (
        f"Time, cost and energy of the training add {percent(pauses)} to the steps: failures, restarts, checkpoints."
        if pauses > 0.0005  # less than the last digit shown
        else "Time, cost and energy of the training assume that no step is lost to failures, restarts or checkpoints."
    )
    sentences = (
        f"The step time is predicted, not measured. Its 90 % interval is {band}.",
        *unseen(estimate),
        "MFU counts causal attention as half and divides by the dense peak; recomputed work is not counted.",
        totals,
        "plan validate holds the same formulas against published runs, plan compare this plan against a measured one.",
    )
    return tag("div", prose(sentences), class_="card")


def sources(plan: Json) -> Html:
    """The inputs with their hashes, and the formulas behind the numbers."""
    inputs = [(row["what"], row["name"], tag("code", row["sha256"])) for row in plan["provenance"]]
    book = [(tag("code", f["name"]), f["unit"], f["doc"], f["source"]) for f in plan["formulas"]]
    formulas = table(("Formula", "Unit", "What it is", "Source"), book, "Formula book")
    return join((
        table(("Input", "Name", "SHA-256"), inputs, "Inputs"),
        folded(f"Formula book: the {len(book)} formulas used, with their sources", formulas),
    ))  # fmt: skip
