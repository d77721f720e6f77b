"""The mixture-of-experts block (Shazeer 2017, arXiv:1701.06538; shared experts: DeepSeekMoE, arXiv:2401.06066).

p = softmax or sigmoid(x W_r); y = Σ_{top-k} p_i expert_i(x) + shared(x), each expert a feed-forward block of `width`.
Parameters: router h·E; experts E · (2 + g)·h·width, of which a token uses k; shared (2 + g)·h·shared_width. The
load-balancing correction (E values, no gradient) counts only where the family keeps it as a parameter (ERNIE 4.5);
DeepSeek-V3 and GLM-4.5 keep a buffer.
Traffic: permute and unpermute move 4 · k · h values per token each way, 16 · k · h bytes in all at two bytes.
Kept: x for the router (and the shared expert), fp32 router logits, the permuted inputs, activation inputs and
outputs. The routed output is not kept: probabilities are applied in the activation.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.layers.base import Cut, Linear, Parts, Pointwise, Vector
from planner.layers.ffn import activation, ffn

FP32 = 2  # an fp32 value counts as two tensors of two bytes


@dataclass(frozen=True)
class Mixture:
    """Sizes of one MoE block; `shared_width` is that of all shared experts together, 0 for none.

    `shared_input`: the shared experts read a tensor of their own (behind a norm of their own), not the router's.
    """

    hidden: int
    experts: int
    topk: int
    width: int
    gated: bool = True
    router_bias: bool = False
    router_correction: bool = False
    expert_bias: bool = False
    shared_width: int = 0
    shared_gate: bool = False
    shared_bias: bool = False
    shared_input: bool = False


def moe(size: Mixture) -> Parts:
    """Router, permutation, routed and shared experts, in order of execution."""
    router = Linear("router", "router", size.hidden, size.experts, Cut.NONE, bias=size.router_bias, cheap_input=True)
    scores = Pointwise("router_scores", size.experts, 2 * FP32, 2 * FP32, saved=FP32)
    correction = (Vector("router_correction", "router", size.experts),) if size.router_correction else ()
    return (router, *correction, scores, *_routed(size), *_shared(size))


def _routed(size: Mixture) -> Parts:
    inner = (1 + size.gated) * size.width
    up = Linear(
        "experts_up",
        "experts",
        size.hidden,
        inner,
        Cut.COLUMN,
        bias=size.expert_bias,
        copies=size.experts,
        active=size.topk,
        expert=True,
    )
    down = Linear(
        "experts_down",
        "experts",
        size.width,
        size.hidden,
        Cut.ROW,
        bias=size.expert_bias,
        copies=size.experts,
        active=size.topk,
        expert=True,
        cheap_input=True,
    )
    return (
        Pointwise("permute", size.hidden, 2, 2, active=size.topk, expert=True),
        up,
        activation("experts_activation", size.width, gated=size.gated, active=size.topk, expert=True),
        down,
        Pointwise("unpermute", size.hidden, 2, 2, active=size.topk, expert=True),
    )


def _shared(size: Mixture) -> Parts:
    if size.shared_width == 0:
        return ()
    block = ffn(
        size.hidden,
        size.shared_width,
        gated=size.gated,
        bias=size.shared_bias,
        label="shared_experts",
        saves_input=size.shared_input,
    )
    if not size.shared_gate:
        return block
    gate = Linear("shared_gate", "shared_experts", size.hidden, 1, Cut.NONE, saves=False)
    return (*block, gate, Pointwise("shared_gating", size.hidden, 2, 3, saved=1))
