"""A published run as a plan: model, cluster, workload, stack, strategy. Nothing measured is read here."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

from planner import schedules, stack
from planner.errors import InputError
from planner.families.row import shape_of_row
from planner.layout import layer_kinds
from planner.model import Model
from planner.plan import Plan
from planner.rules import Case, broken
from planner.setting import Setting
from planner.shape import build
from planner.stack import Stack
from planner.strategy import Choices, Degrees, Workload
from planner.validate.hardware import cluster
from planner.validate.read import Row
from planner.validate.refusal import Refused

STACKS = (
    (re.compile(r"foundry|FSDP2|torchtitan|nanotron|PyTorch 2\.8", re.IGNORECASE), "torch-fsdp"),
    (
        re.compile(r"Megatron-DeepSpeed|PTD-P|Megatron-LM \(May 2022\)|Megatron-LM fork|DeepSpeed \+ Megatron|0\.6\.2"),
        "megatron-2022",
    ),
    (re.compile(r"DeepSpeed|InternEvo"), "deepspeed"),
    (re.compile(r"JAX"), "jax-xla"),
    (re.compile(r"NeMo|Bridge|PyTorch NVIDIA|MXNet|Primus", re.IGNORECASE), "nemo"),
)
VOCABULARY = 51_200  # where a GPT's source is silent: GPT-2's vocabulary padded as Megatron-LM does
FORGIVEN = {"strategy.heads", "strategy.kv_heads", "strategy.widths", "strategy.sequence", "strategy.expert_widths"}
"""Rules that real runs break by padding or by uneven shards; the prediction takes the mean shard."""


def translate(row: Row) -> Plan:
    """The plan of a row; Refused with the reason when its source leaves it open."""
    model = _model(row)
    workload = _workload(row)
    where = cluster(row)
    degrees, choices = _strategy(row, where.gpus, workload)
    case = Case(model, where, workload, choices, degrees)
    faults = [fault for fault in broken(case) if fault.where not in FORGIVEN]
    if faults:
        raise Refused("; ".join(fault.expected for fault in faults))
    setting = Setting(model, where, workload, choices, _stack(row))
    return Plan(row["id"], where.name, setting, degrees)


def _model(row: Row) -> Model:
    model = row["model"]
    key = repr(sorted((name, repr(value)) for name, value in model.items() if name != "arch_source"))
    try:
        return _built(key, _Hidden(model))
    except InputError as error:
        raise Refused(str(error).split("\n")[0]) from None


class _Hidden:
    """A model table that the cache does not look into: its key stands beside it."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden)

    def __hash__(self) -> int:
        return 0


@cache
def _built(key: str, hidden: _Hidden) -> Model:
    model = build(shape_of_row(hidden.table, str(hidden.table.get("name")), VOCABULARY))
    layer_kinds(model)
    return model


def _workload(row: Row) -> Workload:
    seq_len = row["model"].get("seq_len")
    parallel = row["parallel"]
    gbs = parallel.get("gbs")
    if not isinstance(seq_len, int):
        raise Refused("the sequence length is not stated")
    if not isinstance(gbs, int):
        raise Refused("the global batch is not stated")
    return Workload(seq_len, gbs, float(gbs * seq_len))


def _strategy(row: Row, world: int, workload: Workload) -> tuple[Degrees, Choices]:
    p = row["parallel"]
    axes = {axis: p.get(axis) or 1 for axis in ("tp", "pp", "vpp", "cp", "ep", "etp")}
    if world % (axes["tp"] * axes["pp"] * axes["cp"]):
        raise Refused(f"tp · pp · cp does not divide the {world} GPUs")
    dp = world // (axes["tp"] * axes["pp"] * axes["cp"])
    micro_batch = p.get("mbs")
    if micro_batch is None:
        steps = p.get("grad_accum")
        micro_batch = workload.global_batch // (dp * steps) if steps else 1
    if axes["pp"] == 1:
        axes["vpp"] = 1
    zero, replicas = _zero(row, dp * axes["cp"])
    framework = str(row.get("framework") or "")
    schedule = "interleaved" if axes["vpp"] > 1 else "1f1b"
    if "schedule ZB" in framework:
        schedule = "zb-h1"
    micro_batches = workload.global_batch // max(dp * micro_batch, 1)
    if schedules.get(schedule).broken(axes["pp"], axes["vpp"], micro_batches) and schedule == "interleaved":
        raise Refused("the interleaved schedule needs micro-batches in multiples of pp")
    degrees = Degrees(world, micro_batch=int(micro_batch), replicas=replicas, **axes)
    sequence_parallel = p.get("sp") is not False
    return degrees, Choices(
        schedule, _recompute(row), zero, _precision(row), sequence_parallel=sequence_parallel or bool(axes["ep"] > 1)
    )


def _zero(row: Row, ways: int) -> tuple[int, int]:
    """ZeRO stage and number of shard groups."""
    text = str(row["parallel"].get("zero") or "").lower()
    stage = re.search(r"zero(\d)", text)
    zero = int(stage[1]) if stage else 3 if "fsdp" in text else None
    if zero is None:
        zero = 0 if _stack_name(row) == "megatron-2022" else 1
    group = re.search(r"group of (\d+) ranks", text)
    shard = int(group[1]) if group else row["parallel"].get("fsdp") if zero >= 2 else None
    if zero and isinstance(shard, int) and 0 < shard < ways and ways % shard == 0:
        return zero, ways // shard
    return zero, 1


def _recompute(row: Row) -> str:
    text = str(row.get("recompute") or "none")
    return text if text in ("none", "full") else "selective"


def _precision(row: Row) -> str:
    text = str(row.get("precision") or "bf16")
    if text.startswith(("mxfp8", "nvfp4")):
        return text[:5]
    return "fp8" if "fp8" in text else "bf16"


def _stack_name(row: Row) -> str:
    framework = str(row.get("framework") or "")
    return next((name for pattern, name in STACKS if pattern.search(framework)), "megatron-core")


def _stack(row: Row) -> Stack:
    """The stack of the framework, with the overlap that the row states."""
    found = stack.load(_stack_name(row))
    overlap = str(row.get("overlap") or "")
    if overlap.startswith("none"):
        found = replace(found, tensor_overlap=0.0, pipeline_overlap=0.0)
    if "NOT overlapped" in overlap:
        found = replace(found, gradient_overlap=0.0)
    return found
