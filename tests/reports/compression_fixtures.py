"""The table of `plan deploy --compare`: a network as trained and two compressed ones."""

from typing import Any


def compression() -> dict[str, Any]:
    """A classifier as trained, in int8, and pruned."""
    rows = [
        {
            "name": name, "model": "digits", "form": form, "parameters": 75_000, "stored_bytes": size,
            "disk_bytes": size + 3000, "scores": {"accuracy": right, "loss": 0.03, "samples": 345.0},
            "latency": {"seconds": 1.5e-3, "cpu_seconds": 1.4e-3, "repeats": 9, "samples": 64},
        }
        for name, form, size, right in (
            ("dense", "fp32", 300_000, 0.994), ("int8", "int8", 79_000, 0.994), ("pruned", "2:4", 160_000, 0.991),
        )
    ]  # fmt: skip
    measured = {"clock": "wall", "threads": 1, "cores_of_others": 0.0, "quiet": True}
    return {
        "schema_version": 1, "tool_version": "0.1.0", "metric": "accuracy", "rows": rows, "measured": measured,
    }  # fmt: skip
