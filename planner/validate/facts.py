"""What a row of `plan validate` says of a run beside its errors: what it is compared by, and with."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from planner.cost.step import StepTime
from planner.interval import kind, regime
from planner.plan import Plan
from planner.validate.read import Row

Json = dict[str, Any]
VERSION = re.compile(r"\d+(?:\.\d+)+|\b[0-9a-f]{7,}\b")
"""A release or a commit in the name of a framework; other words there may name a layout (FSDP, a schedule)."""
AXES = ("tp", "pp", "vpp", "cp", "ep", "etp", "dp", "replicas")
SETS = ("relaxed_set", "core_set")


def stated(row: Row) -> Json:
    """What the row itself says, whether it is predicted or refused."""
    sets = [name for name in SETS if row.get(name) is True]
    group = row.get("scaling_group")
    return {
        "source": str(row.get("source") or "unknown"),
        "gpu": str(row["hardware"].get("gpu") or "unknown"),
        "model": str(row["model"].get("name") or "unknown"),
        "gpus": row["hardware"].get("num_gpus"),
        "seq_len": row["model"].get("seq_len"),
        "sets": [*sets, *([f"trust_{row['trust']}"] if row.get("trust") else [])],
        "scaling_group": str(group) if group else None,
    }


def planned(row: Row, plan: Plan) -> Json:
    """What the plan of a row adds: its regime, its layout, and what it can be ranked with."""
    setting = plan.setting
    return {
        "regime": regime(setting),
        "kind": kind(setting),
        "precision": setting.precision.name,
        "stack": setting.stack.name,
        "layout": layout(plan),
        "ranking_group": ranking_group(row, plan),
        "global_batch": setting.workload.global_batch,
        "tokens_per_step": setting.workload.tokens_per_step,
    }


def parts(step: StepTime) -> dict[str, float]:
    """The parts of a step [s]."""
    return {field.name: float(getattr(step, field.name)) for field in fields(step)}


def layout(plan: Plan) -> str:
    """The strategy on one line; two runs with the same text are the same to the planner."""
    degrees, choices = plan.degrees, plan.setting.choices
    axes = [f"{axis}{value}" for axis in AXES if (value := int(getattr(degrees, axis))) > 1]
    parts = [*axes, f"mbs{int(degrees.micro_batch)}", f"zero{choices.zero}", choices.schedule]
    return " ".join([*parts, *([f"recompute-{choices.recompute}"] if choices.recompute != "none" else [])])


def ranking_group(row: Row, plan: Plan) -> str:
    """The work that a run shares with those it is ranked among: source, software, model, GPUs, batch, sequence, format.

    Only the layout differs inside a group.
    """
    model, workload = plan.setting.model, plan.setting.workload
    source = str(row.get("source") or "unknown").split(" ")[0]
    software = " ".join(sorted(set(VERSION.findall(str(row.get("framework") or "")))))
    shape = f"{row['model'].get('name')} ({model.layers} layers of {model.hidden}, {model.heads} heads)"
    work = f"batch {workload.global_batch}, sequence {workload.seq_len}, {row.get('precision') or 'format not stated'}"
    return f"{source}{' ' * bool(software)}{software}: {shape} on {plan.degrees.world} {row['hardware']['gpu']}, {work}"
