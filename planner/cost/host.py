"""What the host costs a layer: gaps that it leaves between kernels, and launches that the GPU waits for."""

from __future__ import annotations

import numpy as np

from planner.cost import kernels
from planner.formula import Num, formula
from planner.layers.base import Core, Cut, Linear, Part, Pointwise
from planner.model import Layer
from planner.recompute import repeated
from planner.setting import Setting
from planner.stack import Stack
from planner.strategy import Degrees

REPLAYED = 0.03
"""Host time of a kernel in a CUDA graph over that of a launch by itself: about 0.1 us for 4 us."""
BACKWARD = 0.5
"""Host time of a launch in the backward pass, from autograd's C++ code, over that of one in Python. Chosen on 737 small
GPTs on one A100 node (6.2 % mean error alone); 0.4 and 0.6 differ by less than 0.2 points."""
UNFUSED_SOFTMAX = 4
"""Launches that softmax takes beside one where scale, mask and the two casts are kernels of their own."""
_ROUTING = ("router", "router_scores", "ffn_norm")
_ATTENTION = ("attention", "core", "rotary", "q_", "kv_", "qk_", "qkv", "post_attention", "output_gat")


@formula(unit="s", source="kernels that the host launches, times the idle time that it leaves per kernel")
def host_gap(part: Part, setting: Setting, degrees: Degrees) -> tuple[Num, Num]:
    """Forward and backward idle time of one part: one kernel forward, two backward for a matrix multiply.

    Memory-bound work is as many kernels as the stack takes for it.
    """
    pace, left = setting.host_pace, launched(part, setting.stack)
    gap, cut = setting.stack.kernel_gap * pace * left, setting.stack.cut_gap * pace
    if isinstance(part, Linear) and part.expert:
        each = setting.stack.expert_gap * pace * left
        once: Num = gap + each * (part.copies / degrees.ep) + cut * (degrees.ep * degrees.etp > 1)
        return once, 2.0 * once
    if isinstance(part, Linear):
        once = gap + cut * (part.cut is not Cut.NONE) * (degrees.tp > 1)
        return once, 2.0 * once
    if isinstance(part, Pointwise):
        return gap * setting.stack.pointwise_kernels, gap * setting.stack.pointwise_kernels
    if isinstance(part, Core):
        once = gap + cut * (degrees.cp * (degrees.cp > 1))
        return once, once
    return 0.0, 0.0


@formula(unit="s", source="a GPU that is faster than the host waits for it: the roofline of both")
def starved_time(
    layer: Layer, setting: Setting, degrees: Degrees, busy: tuple[Num, Num], *, rerun: bool
) -> tuple[Num, Num]:
    """Forward and backward time that the GPU waits for launches, beside its `busy` time [s] of the layer.

    `rerun`: recompute applies to the layer.
    """
    each = setting.stack.launch_cost * setting.host_pace
    if not np.any(each):
        return 0.0, 0.0
    ahead: Num = 0.0
    behind: Num = 0.0
    for part in layer.parts:
        if isinstance(part, Linear | Pointwise | Core):
            one: Num = launched(part, setting.stack)
            if isinstance(part, Core):
                one = one * (1.0 + UNFUSED_SOFTMAX * softmax_apart(part, setting, degrees))
            again = repeated(part, setting) * rerun
            ahead, behind = ahead + one, behind + one * (BACKWARD * (1.0 + isinstance(part, Linear)) + again)
    return kernels.roofline(each * ahead, busy[0]) - busy[0], kernels.roofline(each * behind, busy[1]) - busy[1]


def softmax_apart(part: Core, setting: Setting, degrees: Degrees) -> Num:
    """1 where the stack's fused softmax can't take the heads · samples of a rank, else 0."""
    each = setting.stack.softmax_batch
    if not each or setting.stack.flash_attention or part.linear:
        return 0.0
    return 1.0 * (degrees.micro_batch * part.heads / degrees.tp % each != 0)


def launched(part: Part, stack: Stack) -> float:
    """Share of a part's launches that CUDA graphs leave to the host."""
    return REPLAYED if any(_captures(scope, part) for scope in stack.graphed) else 1.0


def _captures(scope: str, part: Part) -> bool:
    """Whether a graph of `scope` (all, attn, moe_router, mlp; Megatron-LM --cuda-graph-scope) holds the part."""
    if scope == "attn":
        return part.name.startswith(_ATTENTION)
    if scope == "moe_router":
        return part.name in _ROUTING
    if scope == "mlp":
        return part.name == "activation" or getattr(part, "label", "") == "dense_ffn"
    return scope == "all"
