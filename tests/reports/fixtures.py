"""Artefacts as the planner writes them, built by formula for an invented model on invented hardware."""

from typing import Any

GIB = 2.0**30
PEAK = 9.2e14  # FLOP/s of the invented GPU
CAPACITY = 96 * GIB
GPUS = 8192
SEQ_LEN, GLOBAL_BATCH, TOKENS = 8192, 2048, 30e12
FLOPS_PER_TOKEN = 2.2e11
PRICE = 2.40  # USD per GPU-hour
HOUR, DAY = 3600.0, 86400.0

PARAMETERS = {
    "total": 918e9, "active": 31.4e9, "embedding": 1.15e9, "attention": 9.8e9, "dense_ffn": 1.4e9, "experts": 901e9,
    "shared_experts": 2.6e9, "router": 0.12e9, "norms": 1.1e6, "head": 1.15e9, "mtp": 15.2e9,
}  # fmt: skip
SHARES = {
    "compute": 0.575, "recompute": 0.06, "tensor": 0.07, "context": 0.0, "expert": 0.12, "pipeline": 0.015,
    "imbalance": 0.02, "bubble": 0.085, "data": 0.03, "optimizer": 0.015, "host": 0.01,
}  # fmt: skip
MEMORY_SHARES = {
    "parameters": 0.19, "gradients": 0.16, "optimizer": 0.14, "activations": 0.34, "logits": 0.03,
    "communication": 0.06, "framework": 0.08,
}  # fmt: skip


def model(name: str = "Zephyr-900B-A31B") -> dict[str, Any]:
    """The catalogue's description of the invented model."""
    return {
        "name": name, "family": "zephyr", "parameters": dict(PARAMETERS),
        "model_flops_per_token": {"seq_len": SEQ_LEN, "causal": FLOPS_PER_TOKEN, "full_attention": 2.5e11},
    }  # fmt: skip


def workload() -> dict[str, Any]:
    """What is trained."""
    return {"seq_len": SEQ_LEN, "global_batch": GLOBAL_BATCH, "tokens": TOKENS}


def cluster() -> dict[str, Any]:
    """The invented cluster."""
    return {
        "name": "aurora-rail", "gpus": GPUS, "gpu": "Q96", "node": "8 x Q96 tray", "fabric": "rail-optimised fat tree",
        "gpu_peak_flops_per_s": PEAK, "precision": "bf16", "price_usd_per_gpu_hour": PRICE,
        "tiers": [
            {"name": "scale-up", "size": 8, "bandwidth": 450e9, "latency": 1.2e-6, "oversubscription": 1.0},
            {"name": "rail", "size": 256, "bandwidth": 50e9, "latency": 3.5e-6, "oversubscription": 1.0},
            {"name": "spine", "size": 8192, "bandwidth": 25e9, "latency": 6.1e-6, "oversubscription": 2.0},
        ],
    }  # fmt: skip


def strategy(gpus: int = GPUS, pp: int = 16, micro_batch: int = 1) -> dict[str, Any]:
    """A strategy on `gpus` GPUs."""
    dp = gpus // (4 * pp)
    return {
        "world": gpus, "tp": 4, "pp": pp, "vpp": 2, "cp": 1, "ep": 64, "etp": 1, "dp": dp, "edp": gpus // (64 * pp),
        "micro_batch": micro_batch, "micro_batches": GLOBAL_BATCH // (dp * micro_batch), "zero": 1,
        "recompute": "selective", "schedule": "interleaved", "sequence_parallel": True,
    }  # fmt: skip


def estimate(mfu: float = 0.43, used: float = 0.87, gpus: int = GPUS, **choices: int) -> dict[str, Any]:
    """A priced strategy that reaches `mfu` and uses the part `used` of the memory."""
    rate = mfu * PEAK
    tokens_per_s = rate * gpus / FLOPS_PER_TOKEN
    step = SEQ_LEN * GLOBAL_BATCH / tokens_per_s
    peak_memory = used * CAPACITY
    return {
        "schema_version": 1, "strategy": strategy(gpus, **choices), "step_time_s": step,
        "interval_s": [step * 0.93, step * 1.09], "tokens_per_s": tokens_per_s,
        "tokens_per_s_per_gpu": tokens_per_s / gpus, "model_flops_per_token": FLOPS_PER_TOKEN,
        "model_flops_per_s_per_gpu": rate, "mfu": mfu, "hfu": mfu * 1.05, "peak_memory_bytes": peak_memory,
        "memory_capacity_bytes": CAPACITY, "fits": used <= 1,
        "time": {field: share * step for field, share in SHARES.items()},
        "memory": {field: share * peak_memory for field, share in MEMORY_SHARES.items()},
        "parameters": {"total": PARAMETERS["total"], "active": PARAMETERS["active"]},
    }  # fmt: skip


def stages(priced: dict[str, Any]) -> list[dict[str, Any]]:
    """Stages whose activations fall with depth; the first holds the embedding, the last the logits."""
    rows: list[dict[str, Any]] = []
    count = priced["strategy"]["pp"]
    for index in range(count):
        memory = dict(priced["memory"])
        memory["activations"] *= 1 - 0.55 * index / count
        memory["logits"] = memory["logits"] if index == count - 1 else 0.0
        layers = "4 MoE" + (" + embedding" if index == 0 else " + head" if index == count - 1 else "")
        total = sum(memory.values())
        rows.append({"stage": index, "layers": layers, "memory": memory, "total": total, "time_s": 0.0213})
    return rows


def waterfall(mfu: float) -> list[dict[str, Any]]:
    """From the peak down to `mfu` of it."""
    losses = {
        "kernel efficiency": 0.5, "recomputed work": 0.06, "tensor-parallel exchange": 0.07, "expert all-to-all": 0.13,
        "pipeline bubble and uneven stages": 0.15, "gradient and weight exchange": 0.05, "optimizer step": 0.04,
    }  # fmt: skip
    lost = PEAK * (1 - mfu)
    rows, value = [{"name": "peak", "value": PEAK, "loss": 0.0}], PEAK
    for name, share in losses.items():
        value -= share * lost
        rows.append({"name": name, "value": value, "loss": share * lost})
    return [*rows, {"name": "achieved", "value": mfu * PEAK, "loss": 0.0}]


def sensitivity() -> list[dict[str, Any]]:
    """How the step time answers to each input, 10 % down and up."""
    elasticity = {
        "gpu.peak.bf16": ("bf16 peak", -0.57), "gpu.hbm_bandwidth": ("HBM bandwidth", -0.08),
        "node.scale_up_bandwidth": ("scale-up bandwidth", -0.07), "fabric.rail.bandwidth": ("rail bandwidth", -0.13),
        "fabric.spine.bandwidth": ("spine bandwidth", -0.03), "workload.global_batch": ("global batch", 0.9),
        "gpu.grouped.efficiency": ("grouped GEMM efficiency", -0.41),
    }  # fmt: skip
    return [
        {"input": key, "label": label, "minus": 0.9**power - 1, "plus": 1.1**power - 1}
        for key, (label, power) in elasticity.items()
    ]


def plan(name: str = "Zephyr-900B-A31B") -> dict[str, Any]:
    """A whole `plan.json`."""
    priced = estimate()
    rows = stages(priced)
    fullest = max(rows, key=lambda stage: float(stage["total"]))
    priced |= {"peak_memory_bytes": fullest["total"], "memory": fullest["memory"]}
    steps = TOKENS / (SEQ_LEN * GLOBAL_BATCH)
    seconds = steps * priced["step_time_s"] * 1.06
    gpu_hours = GPUS * seconds / HOUR
    return {
        "schema_version": 1, "tool_version": "0.1.0", "model": model(name), "cluster": cluster(),
        "workload": workload(), "estimate": priced,
        "training": {
            "steps": steps, "seconds": seconds, "cost_usd": gpu_hours * PRICE, "energy_wh": gpu_hours * 1150.0,
            "tokens_per_day": TOKENS / (seconds / DAY),
        },
        "stages": rows, "waterfall": waterfall(priced["mfu"]), "sensitivity": sensitivity(),
        "binding": "Memory binds: stage 0 is the fullest, so a micro-batch of 2 sequences does not fit; the next limit "
                   "is the expert all-to-all across rails, 12 % of the step.",
        "words": [
            "The model is cut into 16 pipeline stages of 4 layers, each stage in 2 chunks that take turns.",
            "Inside a server, 4 GPUs share the matrices of each layer and the tokens of its norms.",
            "The experts of a layer are spread over 64 GPUs in 8 servers; each GPU holds 4 of 256.",
            "128 copies of the pipeline work on different sequences and sum their gradients once per step.",
            "Attention scores are recomputed in the backward pass; the optimizer state is sharded over all copies.",
        ],
        "provenance": [
            {"what": what, "name": who, "sha256": f"{index:x}" * 64}
            for index, (what, who) in enumerate([("model", name), ("cluster", "aurora-rail"), ("stack", "plain")], 1)
        ],
        "formulas": [
            {"name": "cost.step.step_time", "unit": "s", "source": "Narayanan 2021 eq. 1-2",
             "doc": "The step of a pipeline whose stages hold given layers of each kind."},
            {"name": "collectives.ring.all_gather", "unit": "s", "source": "Thakur 2005 sec. 4.1",
             "doc": "Ring all-gather: latency per hop and (n - 1)/n of the bytes over the bandwidth."},
            {"name": "memory.stage.activations", "unit": "B", "source": "Korthikanti 2022 eq. 5",
             "doc": "Bytes kept for the backward pass by the micro-batches in flight."},
        ],
    }  # fmt: skip


def search() -> dict[str, Any]:
    """A whole `search.json`: forty plans, of which those on the frontier trade step time for memory."""
    plans = [
        estimate(0.43 - 0.0035 * rank, 0.87 - 0.011 * ((rank * 7) % 23), pp=(16, 8, 32)[rank % 3]) for rank in range(40)
    ]
    frontier, least = [], 2.0
    for candidate in plans:
        if candidate["peak_memory_bytes"] / CAPACITY < least:
            least = candidate["peak_memory_bytes"] / CAPACITY
            frontier.append(candidate)
    dropped = {
        "experts divide": 402_116, "layers divide": 231_480, "batch divides": 118_004, "heads divide": 61_920,
        "tensor parallel inside a node": 40_032, "memory": 28_775, "chunks need a pipeline": 9_216,
    }  # fmt: skip
    searched = 912_384
    legal = searched - sum(dropped.values()) + dropped["memory"]
    return {
        "plans": plans, "frontier": frontier, "searched": searched, "legal": legal,
        "priced": legal - dropped["memory"], "dropped": dropped, "seconds": 3.4, "model": model(), "cluster": cluster(),
    }  # fmt: skip


def point(gpus: int, mfu: float, goodput: float, price: float) -> dict[str, Any]:
    """A feasible size of a capacity study."""
    priced = estimate(mfu, 0.94 - 0.03 * (gpus.bit_length() - 10), gpus)
    seconds = TOKENS / priced["tokens_per_s"] / goodput
    return {
        "gpus": gpus, "feasible": True, "step_time_s": priced["step_time_s"],
        "tokens_per_day": TOKENS / (seconds / DAY), "days": seconds / DAY, "cost_usd": gpus * seconds / HOUR * price,
        "mfu": mfu, "goodput": goodput,
        "memory_headroom": CAPACITY - priced["peak_memory_bytes"], "strategy": priced["strategy"],
        "interval_s": priced["interval_s"],
    }  # fmt: skip


def soonest(series: list[dict[str, Any]], deadline: float) -> str:
    """The sentence that answers `--deadline`."""
    least = {
        line["cluster"]: min(p["gpus"] for p in line["points"] if p["feasible"] and p["days"] <= deadline)
        for line in series
    }
    sizes = " or ".join(f"{gpus:,} GPUs of {cluster}" for cluster, gpus in least.items())
    return f"To finish in {deadline:.0f} days: {sizes}."


def capacity(name: str = "Zephyr-900B-A31B") -> dict[str, Any]:
    """A whole `capacity.json`: two clusters, the smallest sizes too small for the model."""
    series = []
    for cluster_name, base, price, knee in (("aurora-rail", 0.47, 2.40, 16384), ("borealis-72", 0.58, 3.90, 32768)):
        points: list[dict[str, Any]] = []
        for power in range(7, 18):
            gpus = 2**power
            if gpus < (1024 if base < 0.5 else 512):
                reason = f"parameters and optimizer state alone need {9e5 / gpus:,.0f} GiB of 96 GiB per GPU"
                points.append({"gpus": gpus, "feasible": False, "reason": reason})
            else:
                points.append(point(gpus, base / (1 + (gpus / (2.2 * knee)) ** 1.3), 1 - gpus / 1.5e6, price))
        series.append({"cluster": cluster_name, "points": points, "knee": knee})
    return {
        "schema_version": 1, "tool_version": "0.1.0", "model": model(name), "workload": workload(), "series": series,
        "answers": [soonest(series, deadline=30.0)],
    }  # fmt: skip


def comparison() -> dict[str, Any]:
    """A step predicted with and without a calibration, and measured; one phase was not measured apart."""
    step = 0.21
    shares = {"forward": 0.3, "backward": 0.5, "data": 0.1, "optimizer": 0.05, "bubble": None}
    rows = [
        {
            "phase": name,
            "predicted_s": step * (share or 0.08) * 1.04,
            "measured_s": None if share is None else step * share,
            "error": None if share is None else 0.04,
            "uncalibrated_s": step * (share or 0.08) * 1.9,
        }
        for name, share in shares.items()
    ]
    whole = {"predicted_s": step * 1.04, "measured_s": step, "error": 0.04, "interval_s": [step * 0.9, step * 1.2]}
    whole |= {"uncalibrated_s": step * 1.9, "uncalibrated_error": 0.9}
    return {"schema_version": 1, "clock": "cpu", "rows": rows, "step": whole, "calibration": "a-lab"}


def placement(nodes: int = 4) -> dict[str, Any]:
    """Twelve experts on nodes of two GPUs, three layers, against a placement in force."""
    experts, gpus, slots = 12, 2 * nodes, 16

    def metrics(balance: float, visited: float) -> dict[str, float]:
        exchange = 1e-4 * visited * balance
        return {
            "balance": balance, "node_balance": 1.02, "nodes_per_token": visited, "remote_nodes": visited - 0.3,
            "nic_bytes": 2e6 * visited * balance, "nvlink_bytes": 4e6, "all_to_all_s": exchange,
            "gemm_s": 1e-4 * balance, "layer_s": exchange + 1e-4 * balance,
        }  # fmt: skip

    rows = [
        {
            "layer": number, "metrics": metrics(1.05 + 0.01 * number, 1.9), "moved": 5, "moved_between_nodes": 2,
            "baseline": {"eplb_global": metrics(1.04, 2.6), "eplb_hierarchical": metrics(1.2, 2.2)},
            "bounds": {"balance": 1.0, "nodes_per_token": 1.4}, "algorithm": "joint 0/1",
        }
        for number in range(3, 6)
    ]  # fmt: skip
    load = [2.4, 2.0] + [0.76] * 10
    drifts = [{"layer": 3 + i, "largest": 2.4, "cv": 0.6, "drift": 0.11, "chance": 0.04 + 0.01 * i} for i in range(3)]
    statistics = {
        "layer": 4, "tokens": 4096, "before": "placement in force", "noise_floor": 1.08, "expert_load": load,
        "replicas": [3, 3] + [1] * 10,
        "gpu_load": {"before": [1.3, *[0.957] * (gpus - 1)], "after": [1.06] + [0.991] * (gpus - 1)},
        "node_traffic": {"before": [[900] * nodes] * nodes, "after": [[600] * nodes] * nodes},
        "coactivation": {
            "experts": list(range(experts)), "node": [expert * nodes // experts for expert in range(experts)],
            "lift": [[0.0 if a == b else 3.0 / (1 + abs(a - b)) for a in range(experts)] for b in range(experts)],
        },
        "layers": drifts,
        "migration": [[int(a != b) for a in range(nodes)] for b in range(nodes)],
    }  # fmt: skip
    series = [
        {"routing": "runs/step-200.npz", "keep_s": 4e-4, "replan_s": 3e-4, "move_s": 0.08, "moved": 6.0,
         "moved_between_nodes": 4.0, "replanned": True},
        {"routing": "runs/step-300.npz", "keep_s": 3.1e-4, "replan_s": 3.0e-4, "move_s": 0.08, "moved": 5.0,
         "moved_between_nodes": 2.0, "replanned": False},
    ]  # fmt: skip
    return {
        "schema_version": 1, "tool_version": "0.1.0", "experts": experts, "nodes": nodes, "gpus_per_node": 2,
        "slots": slots, "algorithm": "joint 0/1", "layers": rows, "seconds": 1.0, "statistics": statistics,
        "series": series,
    }  # fmt: skip
