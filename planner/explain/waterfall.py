"""From the peak FLOP/s of a GPU down to the achieved: each loss is its share of the step."""

from __future__ import annotations

from planner.plan import Json

LOSSES = {
    "launch": "gaps between kernels",
    "recompute": "recomputed work",
    "tensor": "tensor-parallel exchange",
    "context": "context-parallel exchange",
    "expert": "expert all-to-all",
    "pipeline": "sends between stages",
    "imbalance": "uneven stages",
    "bubble": "pipeline bubble",
    "data": "gradient and parameter exchange",
    "optimizer": "optimizer step",
    "host": "host work",
    "stragglers": "stragglers",
    "teacher": "teacher of the distillation",
}


def waterfall(priced: Json, peak: float) -> list[Json]:
    """Rows name, value [FLOP/s left], loss [FLOP/s]; the first is the peak, the last the achieved rate."""
    step, time = priced["step_time_s"], priced["time"]
    achieved = priced["model_flops_per_s_per_gpu"]
    kernels = peak * time["compute"] / step - achieved
    rows: list[Json] = [{"name": "peak", "value": peak, "loss": 0.0}]
    value = peak
    for field, name in LOSSES.items():
        loss = peak * time[field] / step
        if loss > 0.0:
            value -= loss
            rows.append({"name": name, "value": value, "loss": loss})
    rows.append({"name": "kernels below peak", "value": achieved, "loss": kernels})
    return [*rows, {"name": "achieved", "value": achieved, "loss": 0.0}]
