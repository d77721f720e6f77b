"""CSV -> rows: a sweep of small GPTs on one node as vTrain published it (arXiv:2312.12391, ground_truth_single.csv)."""

from __future__ import annotations

import csv
from typing import Any

from planner.errors import Fault, InputError

COLUMNS = {
    "GPUs": "num_gpus",
    "global batch": "gbs",
    "micro batch": "mbs",
    "hidden size": "hidden",
    "attention heads": "heads",
    "# layers": "layers",
    "sequence length": "seq_len",
    "tensor parallelism": "tp",
    "data parallelism": "dp",
    "pipeline parallelism": "pp",
}
TIME = "iteration time (ms)"
SOURCE = "VIA-Research/vTrain data/ground_truth_single.csv (MICRO24, arXiv:2312.12391)"


def rows(text: str, where: str) -> list[dict[str, Any]]:
    """The rows of published runs that `text` holds; InputError with every fault."""
    lines = list(csv.reader(text.splitlines()))
    head = [
        name.strip().removeprefix("# ") if i == 0 else name.strip() for i, name in enumerate(lines[0] if lines else [])
    ]
    missing = [name for name in (*COLUMNS, TIME) if name not in head]
    if missing:
        raise InputError(Fault(where, f"a sweep needs the columns {', '.join(missing)}"))
    found, faults = [], []
    for number, line in enumerate(lines[1:], 2):
        try:
            cells = dict(zip(head, map(float, line), strict=True))
            found.append(_row({key: int(cells[name]) for name, key in COLUMNS.items()}, cells[TIME] / 1e3, number))
        except ValueError:
            faults.append(Fault(f"{where}: line {number}", f"expected {len(head)} numbers", ",".join(line)))
    if faults:
        raise InputError(*faults)
    return found


def _row(size: dict[str, int], seconds: float, number: int) -> dict[str, Any]:
    """One run; what the sweep leaves open (recompute, precision, vocabulary) stays open."""
    hidden, heads = size["hidden"], size["heads"]
    model = {
        "name": f"GPT-h{hidden}-l{size['layers']}",
        "ffn_hidden": 4 * hidden,
        "kv_heads": heads,
        "head_dim": hidden // max(heads, 1),
        "gated_mlp": False,
        "attention": "mha",
        **{key: size[key] for key in ("layers", "hidden", "heads", "seq_len")},
    }
    axes = {key: size[key] for key in ("tp", "pp", "dp", "mbs", "gbs")}
    return {
        "id": f"vtrain_single_{number}",
        "source": SOURCE,
        "trust": "A",
        "model": model,
        "hardware": {"gpu": "A100", "num_gpus": size["num_gpus"], "gpus_per_node": 8},
        "parallel": axes,
        "framework": "Megatron-DeepSpeed, 1F1B",
        "scaling_group": "vtrain_single",
        "measured": {"step_time_s": seconds},
        "derived": None,
    }
