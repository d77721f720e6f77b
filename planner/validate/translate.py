"""A published run as a plan: model, cluster, workload, stack, strategy. Nothing measured is read here."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache

from planner import stack
from planner.errors import InputError
from planner.estimate import estimate
from planner.families.row import shape_of_row
from planner.layout import layer_kinds
from planner.model import Model
from planner.plan import Plan
from planner.recompute import MODULES
from planner.rules import Case, broken
from planner.setting import Setting
from planner.shape import build
from planner.stack import Stack
from planner.strategy import Choices, Degrees, Workload
from planner.validate.hardware import cluster
from planner.validate.read import Row
from planner.validate.recipes import recipe, software
from planner.validate.refusal import Refused

STACKS = (
    (re.compile(r"foundry"), "llm-foundry"),
    (re.compile(r"InternEvo"), "internevo"),
    (re.compile(r"PyTorch NVIDIA|MXNet|NVIDIA NeMo", re.IGNORECASE), "mlperf"),
    (re.compile(r"Megatron-DeepSpeed 2022|0\.6\.2"), "megatron-deepspeed"),
    (re.compile(r"Megatron-DeepSpeed"), "megatron-deepspeed-2023"),
    (re.compile(r"FSDP2|torchtitan|nanotron|PyTorch 2\.8", re.IGNORECASE), "torch-fsdp"),
    (re.compile(r"PTD-P|Megatron-LM \(May 2022\)|Megatron-LM fork"), "megatron-2022"),
    (re.compile(r"DeepSpeed \+ Megatron"), "megatron-deepspeed-2021"),
    (re.compile(r"DeepSpeed"), "deepspeed"),
    (re.compile(r"JAX"), "jax-xla"),
    (re.compile(r"HAI-LLM"), "hai-llm"),
    (re.compile(r"Megatron-Core (dev|v0\.16)|NeMo|Bridge|PyTorch NVIDIA|MXNet|Primus|dgxc", re.IGNORECASE), "nemo"),
)
EARLY_MOE = re.compile(r"NeMo 25\.04.*dgxc")
VOCABULARIES = ((re.compile(r"Zero Bubble"), 32_000),)
"""Qi 2023 prints none; its 14.6 and 28.3 billion parameters are those of 32,000 words."""
VOCABULARY = 51_200  # where a GPT's source is silent: GPT-2's vocabulary padded as Megatron-LM does
A2A_OVERLAP = 0.65
"""Of the all-to-all behind another micro-batch's compute, as Megatron-Core's 1F1B overlap schedules it."""
GRAPH_SCOPES = ("attn", "moe_router", "mlp")
MERGED = re.compile(r"hybridep|deepep", re.IGNORECASE)
MODULE_NAMES = {"op": "matmuls", "shared_expert": "shared_experts"}
UNSHARDED = ("megatron-2022", "megatron-deepspeed-2021", "megatron-deepspeed-2023")
MICRO_BATCHES = (1, 2, 4, 8, 16)
FORGIVEN = {"strategy.heads", "strategy.kv_heads", "strategy.widths", "strategy.sequence", "strategy.expert_widths"}
"""Rules that real runs break by padding or by uneven shards; the prediction takes the mean shard."""
OFFLOADED = re.compile(r"cpu.?offload", re.IGNORECASE)
SHARED_TP = re.compile(r"NeMo 2[34]|Megatron-Core \((?!.*Folding)")
"""Megatron-Core before 0.10: the experts are cut by tp too, as they are by default ever since."""


def translate(row: Row) -> Plan:
    """The plan of a row; Refused with the reason when its source leaves it open."""
    if OFFLOADED.search(str(row.get("notes"))):
        raise Refused("the run keeps states in the memory of the host, which is not modelled")
    model = _model(row)
    where = cluster(row)
    axes, dp = _axes(row, where.gpus)
    workload = _workload(row, dp)
    zero, replicas = _zero(row, dp * axes["cp"])
    micro_batch = _micro_batch(row, axes, dp, workload.global_batch)
    degrees = Degrees(where.gpus, micro_batch=micro_batch or 1, replicas=replicas, **axes)
    choices = _choices(row, axes, zero)
    case = Case(model, where, workload, choices, degrees)
    faults = [fault for fault in broken(case) if fault.where not in FORGIVEN]
    if faults:
        raise Refused("; ".join(fault.expected for fault in faults))
    setting = Setting(model, where, workload, choices, _stack(row))
    if micro_batch is None and not model.experts:
        degrees = _best(setting, degrees, dp)
    return Plan(row["id"], where.name, setting, degrees)


def _best(setting: Setting, degrees: Degrees, dp: int) -> Degrees:
    """The fastest micro-batch that fits: what a source that names none has tuned."""
    share = setting.workload.global_batch // dp
    tried = [replace(degrees, micro_batch=size) for size in MICRO_BATCHES if share % size == 0]
    priced = [(estimate(setting, each), each) for each in tried]
    fitting = [(found, each) for found, each in priced if found.peak <= setting.gpu.hbm_capacity] or priced[:1]
    return min(fitting, key=lambda pair: float(pair[0].step.total))[1]


def _model(row: Row) -> Model:
    try:
        return _built(json.dumps(row["model"], sort_keys=True, default=str), _vocabulary(row))
    except InputError as error:
        raise Refused(str(error).split("\n")[0]) from None


@cache
def _built(text: str, vocabulary: int) -> Model:
    """The model of a row's table, which comes as JSON so that equal tables are built once."""
    table = json.loads(text)
    model = build(shape_of_row(table, str(table.get("name")), vocabulary))
    layer_kinds(model)
    return model


def _vocabulary(row: Row) -> int:
    return next((size for pattern, size in VOCABULARIES if pattern.search(str(row.get("source")))), VOCABULARY)


def _workload(row: Row, dp: int) -> Workload:
    seq_len, p = row["model"].get("seq_len"), row["parallel"]
    if not seq_len:
        raise Refused("the sequence length is not stated")
    factors = (p.get("mbs"), p.get("grad_accum"))
    gbs = p.get("gbs") or (dp * factors[0] * factors[1] if all(factors) else None)
    if not gbs:
        raise Refused("the global batch is not stated")
    return Workload(seq_len, gbs, float(gbs * seq_len))


def _axes(row: Row, world: int) -> tuple[dict[str, int], int]:
    """The stated degrees, 1 where the source is silent, and dp."""
    p = row["parallel"]
    axes: dict[str, int] = {axis: p.get(axis) or 1 for axis in ("tp", "pp", "vpp", "cp", "ep", "etp")}
    if world % (axes["tp"] * axes["pp"] * axes["cp"]):
        raise Refused(f"tp · pp · cp does not divide the {world} GPUs")
    if axes["pp"] == 1:
        axes["vpp"] = 1
    if row["model"].get("moe") and p.get("etp") is None and SHARED_TP.search(str(row.get("framework"))):
        axes["etp"] = axes["tp"]
    return axes, world // (axes["tp"] * axes["pp"] * axes["cp"])


def _micro_batch(row: Row, axes: dict[str, int], dp: int, global_batch: int) -> int | None:
    """The stated micro-batch, else what the gradient accumulation leaves; None where nothing tells."""
    p = row["parallel"]
    steps = p.get("grad_accum")
    if steps is None and axes["pp"] > 1 and "torchtitan" in str(row.get("framework")):
        steps = axes["pp"]  # torchtitan's default number of pipeline micro-batches
    if p.get("mbs"):
        return int(p["mbs"])
    return max(global_batch // (dp * int(steps)), 1) if steps else None


def _choices(row: Row, axes: dict[str, int], zero: int) -> Choices:
    schedule = "interleaved" if axes["vpp"] > 1 else "1f1b"
    if "schedule ZB" in str(row.get("framework")):
        schedule = "zb-h1"
    sequence_parallel = row["parallel"].get("sp") is not False or axes["ep"] > 1
    return Choices(schedule, _recompute(row), zero, _precision(row), sequence_parallel=sequence_parallel)


def _zero(row: Row, ways: int) -> tuple[int, int]:
    """ZeRO stage and number of shard groups."""
    text = str(row["parallel"].get("zero") or "").lower()
    stage = re.search(r"zero(\d)", text)
    zero = int(stage[1]) if stage else 3 if "fsdp" in text else None
    if zero is None:
        zero = 0 if _stack_name(row) in UNSHARDED else 1
    group = re.search(r"group of (\d+) ranks", text)
    shard = int(group[1]) if group else row["parallel"].get("fsdp") if zero >= 2 else None
    if zero and isinstance(shard, int) and 0 < shard < ways and ways % shard == 0:
        return zero, ways // shard
    return zero, 1


def _recompute(row: Row) -> str:
    told = recipe(row).get("recompute_modules") or software(row).get("kept_outputs")
    text = str(row.get("recompute") or ("selective" if told else "none"))
    return text if text in ("none", "full") else "selective"


def _modules(row: Row) -> tuple[str, ...]:
    """The modules that the row or its recipe recomputes; empty where neither names any that is known."""
    stated = str(row.get("recompute") or "")
    words = re.findall(r"\w+", stated) if stated else recipe(row).get("recompute_modules") or ()
    return tuple(MODULE_NAMES.get(word, word) for word in words if MODULE_NAMES.get(word, word) in MODULES)


def _precision(row: Row) -> str:
    text = str(row.get("precision") or "bf16")
    if text.startswith(("mxfp8", "nvfp4")):
        return text[:5]
    return "fp8" if "fp8" in text else "bf16"


def _stack_name(row: Row) -> str:
    framework = str(row.get("framework") or row.get("source") or "")
    if "vTrain" in str(row.get("source")):
        return "megatron-deepspeed-2023"
    if row["model"].get("moe") and EARLY_MOE.search(framework + " " + str(row.get("source"))):
        return "nemo-early-moe"
    return next((name for pattern, name in STACKS if pattern.search(framework)), "megatron-core")


def _stack(row: Row) -> Stack:
    """The stack of the framework, with the overlap that the row states."""
    found = replace(stack.load(_stack_name(row)), **software(row))
    overlap = str(row.get("overlap") or "")
    if overlap.startswith("none"):
        found = replace(found, tensor_overlap=0.0, pipeline_overlap=0.0)
    if "NOT overlapped" in overlap:
        found = replace(found, gradient_overlap=0.0)
    extra = row.get("extra") or {}
    switched = recipe(row)
    if switched.get("moe_a2a_overlap") is True or "A2A overlap" in overlap or "a2a_overlap" in overlap:
        found = replace(found, expert_overlap=A2A_OVERLAP)
    words = f"{switched.get('moe_flex_dispatcher_backend')} {extra.get('dispatcher')} {row.get('framework')}"
    merged = bool(MERGED.search(words))
    waits = 0.0 if switched.get("token_drop") else found.dispatch_gap
    passes = 0.0 if "hybridep" in words.lower() else 1.0 if merged else 2.0
    merged = merged and found.merged_dispatch
    found = replace(found, merged_dispatch=merged, dispatch_gap=waits, permute_traffic=passes)
    modules = _modules(row)
    if modules:
        found = replace(found, recomputed=modules)
    graphs = _graphed(str(switched.get("cuda_graph_impl")), str(switched.get("cuda_graph_scope")), overlap)
    return replace(found, graphed=graphs)


def _graphed(kind: str, scope: str, overlap: str) -> tuple[str, ...]:
    """What CUDA graphs hold: of a whole iteration or layer all, else the scopes that the recipe names."""
    words = f"{kind} {scope} {overlap}"
    if "full_iteration" in words or "full-iteration" in words or "per-layer CUDA graphs" in words or kind == "local":
        return ("all",)
    if kind != "transformer_engine":
        return ()
    return tuple(name for name in GRAPH_SCOPES if name in scope) or (("all",) if scope == "None" else ())
