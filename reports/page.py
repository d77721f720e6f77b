"""The pages: a plan with its search, capacity of clusters, a placement, trainings, compressed models, accuracy."""

from __future__ import annotations

from reports import (
    accuracy_parts,
    capacity_parts,
    compression_parts,
    method_parts,
    placement_parts,
    plan_parts,
    training_parts,
)
from reports.document import document, figures
from reports.markup import join, tag
from reports.words import Json


def plan_page(plan: Json, search: Json | None = None, comparison: Json | None = None) -> str:
    """One self-contained HTML page of `plan.json` and, where there are any, of its search and of its measured run."""
    prose = tag("div", plan_parts.binding(plan), plan_parts.words(plan), class_="stack")
    story = tag("div", prose, plan_parts.strategy(plan), class_="split")
    searching = join((figures(("frontier", "searched"), search), plan_parts.plans(search)))
    sections = (
        ("plan", "The plan", story),
        ("time", "Time", figures(("step_time", "waterfall"), plan)),
        ("memory", "Memory", join((figures(("memory_stages",), plan), plan_parts.stages(plan)))),
        ("inputs", "What it depends on", figures(("sensitivity", "parameters"), plan)),
        ("methods", "Training methods", method_parts.methods(plan)),
        ("batch", "Batch", join((figures(("batch_tokens",), plan), method_parts.batch(plan)))),
        ("search", "The search", searching),
        ("cluster", "The cluster", plan_parts.tiers(plan)),
        ("measured", "Measured", figures(("comparison",), comparison)),
        ("accuracy", "Accuracy", plan_parts.accuracy(plan)),
        ("sources", "Sources", plan_parts.sources(plan)),
    )
    title = f"{plan['model']['name']} on {plan['cluster']['gpus']:,} GPUs"
    return document(title, plan_parts.header(plan), sections, plan["tool_version"])


def capacity_page(capacity: Json) -> str:
    """One self-contained HTML page of `capacity.json`."""
    rates = figures(("tokens_per_day", "mfu", "headroom", "goodput"), capacity)
    sections = (
        ("time", "Time and cost", figures(("days_to_train", "cost_to_train"), capacity)),
        ("efficiency", "Throughput and efficiency", rates),
        ("sizes", "Every size", capacity_parts.sizes(capacity)),
    )
    title = f"{capacity['model']['name']}: how many GPUs"
    return document(title, capacity_parts.header(capacity), sections, capacity["tool_version"])


def placement_page(placement: Json) -> str:
    """One self-contained HTML page of `placement.json` with the `statistics` of its trace."""
    traffic = join((
        tag("p", placement_parts.shown(placement), class_="note"),
        figures(("gpu_load", "expert_load", "node_traffic", "coactivation"), placement),
    ))  # fmt: skip
    sections = (
        ("layer", "A typical layer", traffic),
        ("router", "The router", figures(("routing_drift",), placement)),
        ("moves", "Moves", figures(("replanning", "migration"), placement)),
        ("layers", "Every layer", placement_parts.layers(placement)),
        ("method", "What the numbers mean", placement_parts.method(placement)),
    )
    title = f"{placement['experts']} experts on {placement['nodes'] * placement['gpus_per_node']} GPUs"
    return document(title, placement_parts.header(placement), sections, placement["tool_version"])


def compression_page(compared: Json) -> str:
    """One self-contained HTML page of the table that `plan deploy --compare --json` prints."""
    sections = (
        ("figure", "Quality against size", figures(("before_after",), compared)),
        ("numbers", "Every number", compression_parts.numbers(compared)),
    )
    title = f"{compared['rows'][0]['model']}: before and after compression"
    return document(title, compression_parts.header(compared), sections, compared["tool_version"])


def training_page(training: Json) -> str:
    """One self-contained HTML page of the `training.json` of `plan train`."""
    sections = (
        ("curves", "The training", figures(("training_curve", "learning_rate"), training)),
        ("scores", "At the end", join((training_parts.scores(training), training_parts.report(training)))),
        ("forgetting", "On the data before", training_parts.forgetting(training)),
    )
    title = f"Training of {training['model']['name']}"
    return document(title, training_parts.header(training), sections, training["tool_version"])


def tuning_page(tuning: Json) -> str:
    """One self-contained HTML page of the `tuning.json` of `plan train --tune`."""
    sections = (
        ("search", "The search", figures(("trials",), tuning)),
        ("trials", "Every trial", training_parts.trials(tuning)),
    )
    return document(
        "Search of hyper-parameters", training_parts.search_header(tuning), sections, tuning["tool_version"]
    )


def accuracy_page(accuracy: Json) -> str:
    """One self-contained HTML page of the JSON of `plan validate`."""
    sections = (
        ("runs", "Every run", figures(("predicted_measured",), accuracy)),
        ("worst", "The worst rows", accuracy_parts.worst(accuracy)),
        ("parts", "By part", join((figures(("error_by_source",), accuracy), accuracy_parts.parts(accuracy)))),
        ("ranking", "Ranking", join((figures(("layout_ranking",), accuracy), accuracy_parts.ranking(accuracy)))),
        ("scaling", "Scaling", join((figures(("growth_slopes",), accuracy), accuracy_parts.scaling(accuracy)))),
        ("refused", "Refused rows", accuracy_parts.refused(accuracy)),
        ("method", "What the numbers mean", accuracy_parts.method()),
    )
    title = "Accuracy: predicted against measured"
    return document(title, accuracy_parts.header(accuracy), sections, accuracy["tool_version"])
