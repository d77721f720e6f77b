"""`plan capacity`: the best plan at each cluster size, where doubling stops paying, answers to deadlines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hwprofiles.quantity import format as human
from planner.errors import InputError, NoPlan
from planner.plan import DAY, Json, Plan, estimate_json, model_json, training_json, workload_json
from planner.provenance import SCHEMA_VERSION, fingerprint, tool_version
from planner.search.run import Query, search

PAYING = ("1f1b", "interleaved")  # gpipe idles as long as 1f1b and holds more: never the best
PAYS = 1.5  # a doubling of the GPUs that gives less than this many times the tokens a day has stopped paying


def point(plan_of: Callable[[int], Plan], gpus: int) -> tuple[Json, Plan | None]:
    """The best plan on `gpus` GPUs as a point of the chart, or the reason why there is none."""
    try:
        plan = plan_of(gpus)
        best = search(Query(plan, top=1, max_micro_batch=4, schedules=PAYING)).plans[0]
    except (InputError, NoPlan) as error:
        return {"gpus": gpus, "feasible": False, "reason": str(error).split("\n")[0]}, None
    priced = estimate_json(best.setting, best.degrees)
    run = training_json(best.setting, priced["step_time_s"], best.degrees)
    return {
        "gpus": gpus,
        "feasible": True,
        "step_time_s": priced["step_time_s"],
        "interval_s": priced["interval_s"],
        "tokens_per_day": run["tokens_per_day"],
        "days": run["seconds"] / DAY,
        "cost_usd": run["cost_usd"],
        "energy_wh": run["energy_wh"],
        "mfu": priced["mfu"],
        "memory_headroom": priced["memory_capacity_bytes"] - priced["peak_memory_bytes"],
        "strategy": priced["strategy"],
    }, best


def knee(points: Sequence[Json]) -> int | None:
    """The size after which the next doubling gives less than `PAYS` times the tokens a day; None when all pay."""
    good: dict[int, float] = {p["gpus"]: p["tokens_per_day"] for p in points if p["feasible"]}
    for gpus in sorted(good):
        if 2 * gpus in good and good[2 * gpus] < PAYS * good[gpus]:
            return gpus
    return None


def capacity(
    plan_of: Callable[[str, int], Plan],
    clusters: Sequence[str],
    sizes: Sequence[int],
    limits: tuple[float | None, float | None],
    progress: Callable[[str], None],
) -> Json:
    """capacity.json for `clusters` over `sizes`; `limits` = deadline [s] and budget [USD], each may be None."""
    series: list[Json] = []
    any_plan = None
    clusters_used: dict[str, object] = {}
    for cluster in clusters:
        points = []
        for gpus in sizes:
            found, best = point(lambda n, c=cluster: plan_of(c, n), gpus)  # type: ignore[misc]
            any_plan = any_plan or best
            if best:
                clusters_used[cluster] = best.setting.cluster.node
            points.append(found)
            progress(f"{cluster} {gpus:,} GPUs: " + (f"{found['days']:.1f} days" if best else found["reason"]))
        series.append({"cluster": cluster, "points": points, "knee": knee(points)})
    if any_plan is None:
        reasons = dict.fromkeys(p["reason"] for line in series for p in line["points"])
        raise NoPlan("no size has a plan:\n" + "\n".join(reasons))
    setting = any_plan.setting
    work = setting.workload
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "model": model_json(setting.model, work.seq_len),
        "workload": workload_json(work),
        "series": series,
        "answers": answers(series, limits),
        "provenance": [
            fingerprint("model", any_plan.model_name, setting.model),
            *(fingerprint("cluster", name, used) for name, used in clusters_used.items()),
            fingerprint("stack", setting.stack.name, setting.stack),
        ],
    }


def answers(series: list[Json], limits: tuple[float | None, float | None]) -> list[str]:
    """The deadline and the budget answered in a sentence each, and where each cluster stops paying."""
    deadline, budget = limits
    points = [(line["cluster"], p) for line in series for p in line["points"] if p["feasible"]]
    lines = []
    if deadline is not None:
        lines.append(_deadline(points, deadline))
    if budget is not None:
        lines.append(_budget(points, budget))
    return lines + [_knee_sentence(line) for line in series]


def _knee_sentence(line: Json) -> str:
    if line["knee"] is None:
        return f"On {line['cluster']} every doubling shown still gives at least {PAYS} times the tokens a day."
    return (
        f"On {line['cluster']} doubling beyond {line['knee']:,} GPUs gives less than {PAYS} times the tokens a day: "
        "more GPUs cost more per token from there."
    )


def _deadline(points: list[tuple[str, Json]], deadline: float) -> str:
    good = [(p["cost_usd"], name, p) for name, p in points if p["days"] * DAY <= deadline]
    if not good:
        _, name, p = min(((p["days"], name, p) for name, p in points), key=lambda item: item[:2])
        fastest = f"{p['days']:.1f} days on {p['gpus']:,} GPUs of {name}"
        return f"No size shown finishes in {human(deadline, 's')}; the fastest is {fastest}."
    cost, name, p = min(good, key=lambda item: item[:2])
    taken = f"{p['gpus']:,} GPUs of {name} take {p['days']:.1f} days for {human(cost, 'USD')}"
    return f"To finish in {human(deadline, 's')}: {taken}, the cheapest that do."


def _budget(points: list[tuple[str, Json]], budget: float) -> str:
    good = [(p["days"], name, p) for name, p in points if p["cost_usd"] <= budget]
    if not good:
        cost, name, p = min(((p["cost_usd"], name, p) for name, p in points), key=lambda item: item[:2])
        cheapest = f"{human(cost, 'USD')} on {p['gpus']:,} GPUs of {name}"
        return f"No size shown stays within {human(budget, 'USD')}; the cheapest is {cheapest}."
    days, name, p = min(good, key=lambda item: item[:2])
    fastest = f"{p['gpus']:,} GPUs of {name} are the fastest, {days:.1f} days for {human(p['cost_usd'], 'USD')}"
    return f"Within {human(budget, 'USD')}: {fastest}."
