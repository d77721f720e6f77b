"""The software stack as data: what a framework overlaps, fuses and keeps. One TOML each in `planner/data/stacks`."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from planner import fitted
from planner.errors import Fault, InputError, nearest


@dataclass(frozen=True)
class Stack:
    """Mechanisms with a meaning, shared by all runs of the stack on all GPUs.

    `flash_attention`: the attention product is fused (no seq² tensor in memory). `..._overlap`: the share of that
    traffic that may hide behind computation (0 none, 1 all that fits). `gradient_bytes` [B] per parameter.
    `parameter_prefetch`: ZeRO-3 gathers the next layer while this one computes. `logit_bytes` [B] that the loss holds
    of each logit (6: bf16 and an fp32 softmax in place; 12: fp32 logits, softmax and gradient at once).
    `pointwise_traffic`: traffic of memory-bound work over the fused ideal. `attention_rate`: of the stack's attention
    kernel over that of the profile. `kernel_gap` [s]: idle time that the host leaves per kernel, `expert_gap` [s] per
    local expert and layer. `jitter`: share of the compute lost to stragglers per e-fold of GPUs beyond eight.
    `step_overhead` [s]: host work once per step (data, logging, gradient norm). `allocator`: reserved over allocated
    memory. A negative overlap means that the traffic costs more than alone (it shares the GPU with computation). What
    only an eager stack pays: `pointwise_kernels` launched by one memory-bound part (1: fused), and the host's work [s]
    per collective inside a layer (`collective_gap`), per message between stages (`message_gap`), per matrix or
    attention that an axis cuts (`cut_gap`), per pass of a micro-batch over a chunk (`pass_gap`), per layer and pass
    under data parallelism (`shard_gap`) and per parameter tensor in the update (`tensor_gap`). `optimizer_traffic`: of
    the update over one fused kernel; `shard_traffic`: of copies in and out of communication buffers over the bytes
    communicated; `split_traffic`: of adding up weight gradients in passes of their own, over their bytes.
    `scatter_by_reduce`: a reduce-scatter runs as an all-reduce (gloo). `merged_dispatch`: a token travels once to all
    its experts of one domain (DeepEP, HybridEP), not once to each (NCCL all-to-all); `dispatch_gap` [s] is what the
    host of a plain all-to-all waits, forward and backward together, for the counts of an expert layer.
    `attention_kernel`: a table of `attention_kernels.toml`. `launch_cost` [s]: the host's time to launch what one part
    of a layer runs, which shows where the GPU is faster. `rank_gap` [s] per rank that shards the states and per step,
    where each rank broadcasts its updated parameters by itself. `permute_traffic`: of sorting tokens by expert and
    back, over one fused pass each (0: the dispatch does it; 2: a plain all-to-all sorts again what arrives).
    `softmax_batch`: the fused softmax takes heads · samples of a rank only in multiples of it (Megatron-LM 2021: 4;
    0: any). `loss_traffic` [B] that the loss moves of each logit, forward and backward together (0: the ideal times
    `pointwise_traffic`).
    `scattered_sends`: each rank of tp sends its part of a stage's output, and the next stage gathers it (Narayanan
    2021, sec. 4.1). `graphed`: what CUDA graphs hold of a layer (attn, moe_router, mlp or all). `recomputed`: the
    modules of `planner.recompute` that selective recompute runs again.

    Memory: `cut_logit_bytes` [B] of a logit where tp cuts the vocabulary (0: `logit_bytes`); `held_gradient` [B] a
    parameter of all copies of its gradient (0: `gradient_bytes`); `unfused_gradient` [B] a value of a weight gradient
    that is computed apart and then added (0: in one kernel); `update_bytes` [B] that the optimizer's step takes for
    each parameter it updates, beside the states; `libraries` [B] of the communication library and of others that torch
    doesn't see; `keeps_gathered`: under a pipeline ZeRO-3 leaves the gathered parameters and their gradients in memory
    until the step ends; `fused_pointwise`: a gated activation is one kernel that keeps its input alone; `kept_outputs`:
    the matrices whose outputs are all that selective recompute keeps beside a layer's input (checkpoint policies of
    JAX).
    """

    name: str
    source: str
    flash_attention: bool
    tensor_overlap: float
    expert_overlap: float
    context_overlap: float
    pipeline_overlap: float
    gradient_overlap: float
    parameter_prefetch: bool
    gradient_bytes: float
    logit_bytes: float
    pointwise_traffic: float
    attention_rate: float
    kernel_gap: float
    expert_gap: float
    jitter: float
    step_overhead: float
    allocator: float
    pointwise_kernels: float = 1.0
    collective_gap: float = 0.0
    message_gap: float = 0.0
    cut_gap: float = 0.0
    pass_gap: float = 0.0
    shard_gap: float = 0.0
    shard_traffic: float = 0.0
    split_traffic: float = 0.0
    tensor_gap: float = 0.0
    optimizer_traffic: float = 1.0
    scatter_by_reduce: bool = False
    merged_dispatch: bool = True
    dispatch_gap: float = 0.0
    attention_kernel: str = "profile"
    launch_cost: float = 0.0
    rank_gap: float = 0.0
    permute_traffic: float = 1.0
    reserved_sms: float = 0.0
    softmax_batch: int = 0
    loss_traffic: float = 0.0
    scattered_sends: bool = False
    graphed: tuple[str, ...] = ()
    cut_logit_bytes: float = 0.0
    held_gradient: float = 0.0
    unfused_gradient: float = 0.0
    update_bytes: float = 0.0
    libraries: float = 0.0
    keeps_gathered: bool = False
    fused_pointwise: bool = True
    kept_outputs: tuple[str, ...] = ()
    recomputed: tuple[str, ...] = ("layernorm", "moe_act", "mlp_act", "mla_up_proj", "core_attn")


def names() -> list[str]:
    """Known stacks, sorted."""
    return sorted(path.name.removesuffix(".toml") for path in _folder().iterdir() if path.name.endswith(".toml"))


@cache
def load(name: str) -> Stack:
    """The stack called `name`; InputError with the nearest name when there is none."""
    if name not in names():
        raise InputError(Fault("--stack", f"expected one of {', '.join(names())}", name, nearest(name, names())))
    data = prior(name) | fitted.of_stack(name)
    stated = [f.name for f in fields(Stack) if f.name != "name" and (f.default is MISSING or f.name in data)]
    return Stack(name=name, **{field: data[field] for field in stated})


@cache
def attention_kernel(name: str, generation: str) -> float:
    """Rate of a stack's attention kernel over that of the GPU profile."""
    text = (resources.files("planner") / "data" / "attention_kernels.toml").read_text(encoding="utf-8")
    rates: dict[str, Any] = tomllib.loads(text)[name]
    return float(rates.get(generation, rates["all"]))


def prior(name: str) -> dict[str, Any]:
    """The fields of the stack's own file, before any fit."""
    return tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8"))


def family(name: str) -> str:
    """The stacks that deviate alike from what their files say; a stack without kin is a family of its own."""
    return str(prior(name).get("family", name)) if name in names() else name


def _folder() -> Traversable:
    return resources.files("planner") / "data" / "stacks"
