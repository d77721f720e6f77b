"""The whole plan.json: the plan and everything that explains it."""

from __future__ import annotations

from dataclasses import fields

from planner.cost.step import stage_total
from planner.estimate import memories, units
from planner.explain.batch import batch
from planner.explain.methods import methods
from planner.explain.sensitivity import sensitivity
from planner.explain.tree import used_formulas
from planner.explain.waterfall import waterfall
from planner.explain.words import binding, words
from planner.layout import Layout, layer_kinds, layout, stage_counts
from planner.plan import Json, Plan, peak_flops, plan_json


def document(plan: Plan) -> Json:
    """plan.json: estimate, training, stages, waterfall, sensitivity, words, constraint, formulas, provenance."""
    data = plan_json(plan)
    priced = data["estimate"]
    return {
        **data,
        "stages": stages(plan),
        "waterfall": waterfall(priced, peak_flops(plan.setting)),
        "sensitivity": sensitivity(plan),
        "binding": binding(plan, priced),
        "words": words(plan, priced),
        "methods": methods(plan),
        "batch": batch(plan, priced["step_time_s"]),
        "formulas": used_formulas(plan),
    }


def stages(plan: Plan) -> list[Json]:
    """Every stage: its layers, memory by holder, and time of one micro-batch [s]."""
    setting, degrees = plan.setting, plan.degrees
    pp, vpp = int(degrees.pp), int(degrees.vpp)
    parts = units(setting, degrees)
    costs = tuple(part.cost for part in parts)
    kinds = layer_kinds(setting.model)
    content = stage_counts(setting.model, setting.workload.seq_len, pp, vpp)
    memory = memories(
        parts,
        Layout(content, tuple(range(pp)), layout(setting.model, setting.workload.seq_len, pp, vpp).total),
        setting,
        degrees,
    )
    return [
        {
            "stage": stage,
            "layers": " + ".join(f"{n} {kind.name}" for n, kind in zip(counts, kinds, strict=True) if n),
            "memory": {f.name: float(getattr(held, f.name)) for f in fields(held)},
            "total": float(held.total),
            "time_s": float(stage_total(costs, counts)),
        }
        for stage, (counts, held) in enumerate(zip(content, memory, strict=True))
    ]
