"""The JSON of `plan validate`: invented runs of two generations, four sources and three kinds of models."""

from typing import Any

from planner.validate.summary import summary

KINDS = ("dense", "moe", "small")


def run(number: int) -> dict[str, Any]:
    """One run, predicted some percent off, every seventh far off."""
    measured = 0.2 * 1.35**number
    predicted = measured * (1.0 + (0.5 if number % 7 == 6 else 0.02 * (number % 5 - 2)))
    generation = ("hopper", "blackwell")[number % 2]
    kind = KINDS[number % 3]
    gpus = 8 * 2 ** (number % 4)
    return {
        "id": f"zephyr_{number}", "source": f"Source-{number % 4} table {number}", "gpu": f"Q{generation[:1]}96",
        "model": "Zephyr-900B", "gpus": gpus, "seq_len": 8192, "sets": ["relaxed_set", "trust_A"],
        "scaling_group": f"growth_{number % 3}", "regime": f"{generation}-{kind}", "kind": kind, "precision": "bf16",
        "stack": "nemo", "layout": f"tp{number} mbs1 zero1 1f1b", "ranking_group": f"Source-{number % 2}: Zephyr-900B",
        "global_batch": 2048, "tokens_per_step": 2048.0 * 8192, "status": "ok", "reason": None,
        "time": {"compute": 0.7 * predicted, "bubble": 0.2 * predicted, "data": 0.1 * predicted},
        "measured_step_s": measured, "predicted_step_s": predicted, "interval_s": [0.9 * predicted, 1.15 * predicted],
        "error": predicted / measured - 1.0, "measured_peak_bytes": 60e9, "predicted_peak_bytes": 63e9,
        "memory_error": 0.05,
    }  # fmt: skip


def refused() -> dict[str, Any]:
    """A run that is not predicted."""
    kept = ("id", "source", "gpu", "model", "gpus", "seq_len", "sets", "scaling_group", "measured_step_s")
    made = {key: value if key in kept else None for key, value in run(0).items()}
    return made | {"id": "open", "status": "unsupported", "reason": "the sequence length is not stated"}


def accuracy() -> dict[str, Any]:
    """A whole validation."""
    rows = [*(run(number) for number in range(24)), refused()]
    provenance = [{"what": "runs", "name": "data/runs.yaml", "sha256": "0" * 64}]
    return {
        "schema_version": 1, "tool_version": "0.1.0", "rows": rows, "summary": summary(rows), "provenance": provenance,
    }  # fmt: skip
