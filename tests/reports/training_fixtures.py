"""Artefacts of `plan train`: a classification that stopped early, and a search of two rungs."""

from typing import Any

STEPS, EVERY = 40, 10
LOSSES = {10: 1.8, 20: 0.9, 30: 1.1, 40: 1.2}


def training() -> dict[str, Any]:
    """A training of forty steps that kept those of step 20."""
    scores = {"loss": 0.9, "accuracy": 0.81, "precision": 0.8, "recall": 0.79, "f1": 0.795}
    row = {"precision": 0.8, "recall": 0.79, "f1-score": 0.795, "support": 50.0}
    report = {"cat": row, "dog": row, "accuracy": 0.81, "macro avg": row}
    return {
        "schema_version": 1, "tool_version": "0.1.0", "recipe": {}, "stopped": False, "stopped_early": True,
        "model": {"name": "digits-resnet", "parameters": 77290, "active": 77290}, "ranks": 2,
        "data": {"objective": "classification", "train": 1000, "validation": 200, "test": 100},
        "strategy": {"tp": 1, "pp": 1, "cp": 1, "ep": 1, "dp": 2, "optimizer": "adamw"},
        "curve": [
            {"step": step, "loss": 2.0 * 0.95**step, "learning_rate": 1e-3 * min(step / 5, 1.0),
             "gradient_norm": 1.0 + step / STEPS, "wall_s": 0.1}
            for step in range(1, STEPS + 1)
        ],
        "evaluations": [{"step": step, "loss": loss, "accuracy": 0.5} for step, loss in LOSSES.items()],
        "best": {"metric": "loss", "patience": 2, "value": 0.9, "step": 20, "bad": 2},
        "final": {"validation": {"samples": 200, **scores}, "test": {"samples": 100, **scores, "report": report}},
        "forgetting": {"before": {"loss": 1.0, "accuracy": 0.7}, "after": {"loss": 2.0, "accuracy": 0.4}},
        "methods": {},
    }  # fmt: skip


def tuning() -> dict[str, Any]:
    """Three trials of 10 steps, one of which failed, and the best of them for 30."""
    rates = {0: 1e-4, 1: 1e-3, 2: 1.0}
    values = {number: {"learning_rate": rate, "batch": 8 * (number + 1)} for number, rate in rates.items()}
    losses = {0: 2.5, 1: 1.5, 2: None}
    trials = [
        {"number": number, "values": values[number], "steps": 10, "loss": loss,
         "failure": None if loss else "the loss is nan in step 3"}
        for number, loss in losses.items()
    ]  # fmt: skip
    best = {"number": 1, "values": values[1], "steps": 30, "loss": 1.1, "failure": None}
    return {
        "schema_version": 1, "tool_version": "0.1.0", "recipe": {}, "trials": [*trials, best], "best": best,
        "searched": {"learning_rate": [1e-4, 1.0], "batch": [8, 16, 24]}, "best_recipe": "out/best.toml",
    }  # fmt: skip
