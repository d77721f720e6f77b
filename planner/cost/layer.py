"""Time of one micro-batch through one layer on one rank, forward and backward, by what it is spent on."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hwprofiles.curve import MatmulCurve
from planner.compression.prune import SPARSE_GAIN
from planner.cost import kernels
from planner.cost.communication import context_time, expert_time, tensor_time
from planner.cost.host import host_gap, softmax_apart, starved_time
from planner.formula import Num, formula
from planner.layers.base import Core, Cut, Linear, Part, Pointwise
from planner.model import Layer, core_flops
from planner.precision import LOW_PRECISION
from planner.recompute import exchanges, repeated
from planner.setting import Setting, tokens
from planner.sharding import linear_rows, pointwise_rows, sparse_copies
from planner.strategy import Degrees

ROUTES = ("permute", "unpermute")  # each one kernel, whatever else a stack leaves unfused
TENSOR_CORE = 8  # values of 16 bits that a multiply's innermost dimension must be a multiple of
SCORES = (14.0, 18.2)  # B a score, forward and backward, of unfused attention with a fused softmax
CASTS = (28.0, 34.0)  # B a score, forward and backward, of an fp32 softmax with scale, mask and casts apart
UNALIGNED = 0.1  # rate of a product that can't use tensor cores, which are 8 (H100: 15) times as fast as the others


@dataclass(frozen=True)
class LayerTime:
    """Seconds per micro-batch and layer; communication is what stays exposed, forward and backward together.

    `launch_forward` and `launch_backward` are the gaps that the host leaves between kernels, recomputed ones in the
    latter.
    """

    forward: Num
    backward: Num
    launch_forward: Num
    launch_backward: Num
    recompute: Num
    tensor: Num
    context: Num
    expert: Num

    @property
    def total(self) -> Num:
        """Sum of the fields."""
        total: Num = sum(getattr(self, f.name) for f in fields(self))
        return total

    @property
    def ahead(self) -> Num:
        """All of the forward pass, with half of the communication."""
        return self.forward + self.launch_forward + 0.5 * (self.tensor + self.context + self.expert)

    @property
    def behind(self) -> Num:
        """All of the backward pass and what it recomputes, with half of the communication."""
        work = self.backward + self.launch_backward + self.recompute
        return work + 0.5 * (self.tensor + self.context + self.expert)


@formula(unit="s", source="sum over the parts of the layer; backward is dgrad and wgrad of each matrix multiply")
def layer_time(layer: Layer, setting: Setting, degrees: Degrees, *, rerun: bool = True) -> LayerTime:
    """Time of one micro-batch through `layer` under `degrees` (numbers or arrays); `rerun`: recompute applies to it."""
    forward: Num = 0.0
    backward: Num = 0.0
    gap_forward: Num = 0.0
    gap_backward: Num = 0.0
    again: Num = 0.0
    core: Num = 0.0
    core_backward: Num = 0.0
    for part in layer.parts:
        if isinstance(part, Core):
            core, core_backward = core_time(part, setting, degrees)
            ahead, behind = core, core_backward
        else:
            ahead, behind = part_time(part, setting, degrees)
        gaps = host_gap(part, setting, degrees)
        forward, gap_forward = forward + ahead, gap_forward + gaps[0]
        more = repeated(part, setting) * rerun
        backward, gap_backward = backward + behind, gap_backward + gaps[1] + gaps[0] * more
        again = again + ahead * more
    passes = 2.0 + (rerun and setting.choices.recompute == "full")
    crossings = 2.0 + (rerun and exchanges(setting))
    tensor = tensor_time(layer, setting, degrees, passes)
    context = context_time(layer, setting, degrees, core, core_backward)
    expert = expert_time(layer, setting, degrees, crossings, forward + backward + gap_forward + gap_backward)
    exchanged = tensor + context + expert
    busy = (forward + exchanged / passes, backward + again + exchanged * (1.0 - 1.0 / passes))
    starved = starved_time(layer, setting, degrees, busy, rerun=rerun)
    return LayerTime(
        forward,
        backward,
        gap_forward + starved[0],
        gap_backward + starved[1],
        again,
        tensor,
        context,
        expert,
    )


def part_time(part: Part, setting: Setting, degrees: Degrees) -> tuple[Num, Num]:
    """Forward and backward time of a part other than attention; weights alone cost nothing here."""
    if isinstance(part, Linear):
        return expert_linear_time(part, setting, degrees) if part.expert else linear_time(part, setting, degrees)
    if isinstance(part, Pointwise):
        return pointwise_time(part, setting, degrees)
    return 0.0, 0.0


def linear_time(part: Linear, setting: Setting, degrees: Degrees) -> tuple[Num, Num]:
    """Forward, and dgrad + wgrad, of a matrix multiply cut by tp."""
    rows = linear_rows(part, setting, degrees)
    inner = part.inputs / degrees.tp if part.cut is Cut.ROW else part.inputs * 1.0
    columns = part.outputs / degrees.tp if part.cut is Cut.COLUMN else part.outputs * 1.0
    held = inner * part.density  # of the input, a row
    form, peak, curve = _form(part, setting)
    gain, light = sparse_gain(part, setting)
    gpu, accumulate = setting.gpu, 2.0 * setting.stack.gradient_bytes
    out = form * (rows * held + light * inner * columns) + setting.value * rows * columns
    back = form * (rows * columns + light * inner * columns) + setting.value * rows * held
    ahead = kernels.matmul(rows, columns, inner, out, gain * peak, curve, gpu)
    down = kernels.matmul(rows, inner, columns, back, gain * peak, curve, gpu)
    moved = form * rows * (held + columns) + accumulate * inner * columns
    wide = kernels.matmul(inner, columns, rows, moved, peak, curve, gpu)
    cast = setting.precision.cast if part.label in LOW_PRECISION else 0.0
    faked = fake_quantize_time(part, rows * held, inner * columns, setting)
    return (
        ahead + kernels.traffic(cast * rows * held, gpu) + faked[0],
        down + wide + kernels.traffic(cast * rows * columns, gpu) + faked[1],
    )


def expert_linear_time(part: Linear, setting: Setting, degrees: Degrees) -> tuple[Num, Num]:
    """Forward, and dgrad + wgrad, of the local experts of the fullest rank in one grouped kernel each."""
    local = part.copies / degrees.ep
    spread: Num = tokens(setting, degrees) / degrees.tp * degrees.etp * part.active * setting.routing.imbalance
    rows = spread / local
    inner = part.inputs / degrees.etp if part.cut is Cut.ROW else part.inputs * 1.0
    columns = part.outputs / degrees.etp if part.cut is Cut.COLUMN else part.outputs * 1.0
    form, peak, _ = _form(part, setting)
    gain, light = sparse_gain(part, setting)
    gpu, accumulate = setting.gpu, 2.0 * setting.stack.gradient_bytes
    matrices = local * inner * columns
    out = form * (spread * inner + light * matrices) + setting.value * spread * columns
    back = form * (spread * columns + light * matrices) + setting.value * spread * inner
    ahead = kernels.grouped_matmul(local, rows, columns, inner, out, gain * peak, gpu.grouped, gpu)
    down = kernels.grouped_matmul(local, rows, inner, columns, back, gain * peak, gpu.grouped, gpu)
    wide = kernels.grouped_matmul(
        local, inner, columns, rows, form * spread * (inner + columns) + accumulate * matrices, peak, gpu.grouped, gpu
    )
    cast = setting.precision.cast
    faked = fake_quantize_time(part, spread * inner, matrices, setting)
    return (
        ahead + kernels.traffic(cast * spread * inner, gpu) + faked[0],
        down + wide + kernels.traffic(cast * spread * columns, gpu) + faked[1],
    )


def sparse_gain(part: Linear, setting: Setting) -> tuple[float, float]:
    """Speed of forward and dgrad over the dense multiply, and bytes of their weights over the dense ones; 1 and 1.

    The gain is the one measured for 2:4, and never more than the ratio of the peaks.
    """
    if not setting.pruning.skips(part):
        return 1.0, 1.0
    precision, gpu = setting.precision, setting.gpu
    ratio = gpu.sparse[precision.peak] / gpu.peak[precision.peak]
    return min(SPARSE_GAIN, ratio), 0.5 * sparse_copies(setting) / precision.operand


@formula(unit="s", source="Jacob 2018, arXiv:1712.05877: weights, and inputs, rounded and written again in each pass")
def fake_quantize_time(part: Linear, inputs: Num, weights: Num, setting: Setting) -> tuple[Num, Num]:
    """Forward and backward traffic of quantization-aware training; the backward pass rounds the weights again."""
    method = setting.quantizing
    if not (method.recast or method.input_cast) or not method.applies(part):
        return 0.0, 0.0
    again = kernels.traffic(method.recast * weights, setting.gpu)
    return again + kernels.traffic(method.input_cast * inputs, setting.gpu), again


def pointwise_time(part: Pointwise, setting: Setting, degrees: Degrees) -> tuple[Num, Num]:
    """Forward and backward traffic of memory-bound work, in the base type."""
    rows = pointwise_rows(part, setting, degrees)
    stack = setting.stack
    over = stack.permute_traffic if part.name in ROUTES else stack.pointwise_traffic
    if part.name == "loss" and stack.loss_traffic:
        over = stack.loss_traffic / (setting.value * (part.forward + part.backward))
    moved = setting.value * rows * part.width * over
    gpu = setting.gpu
    launch = gpu.matmul[setting.precision.base].launch
    ahead = kernels.pointwise(moved * part.forward, launch, gpu) if part.forward else 0.0
    return ahead, kernels.pointwise(moved * part.backward, launch, gpu) if part.backward else 0.0


@formula(unit="s", source="FLOP of the attention product over the kernel's rate; unfused: the seq² tensors through HBM")
def core_time(part: Core, setting: Setting, degrees: Degrees) -> tuple[Num, Num]:
    """Forward and backward of the attention product, balanced over cp."""
    seq_len, gpu = setting.workload.seq_len, setting.gpu
    rows = tokens(setting, degrees)
    flop: Num = rows / degrees.tp * core_flops(part, seq_len, causal=setting.stack.flash_attention)
    reach = float(min(seq_len, part.window or seq_len))
    peak = gpu.peak[setting.precision.base] * setting.sustained * setting.attention_rate
    rate: Num = kernels.attention_rate(reach, 0.5 * (part.qk_dim + part.v_dim), peak, gpu.attention)
    launch = gpu.matmul[setting.precision.base].launch
    if not setting.stack.flash_attention and part.qk_dim % TENSOR_CORE:
        rate = rate * UNALIGNED
    ahead: Num = launch + flop / rate
    behind: Num = launch + kernels.BACKWARD_FLOP * flop / (rate * gpu.attention.backward_rate)
    if not setting.stack.flash_attention and not part.linear:
        score: Num = kernels.traffic(rows / degrees.tp * part.heads * reach, gpu)  # of one byte each
        apart = softmax_apart(part, setting, degrees)
        ahead = ahead + (SCORES[0] + CASTS[0] * apart) * score
        behind = behind + (SCORES[1] + CASTS[1] * apart) * score
    return ahead, behind


def _form(part: Linear, setting: Setting) -> tuple[float, float, MatmulCurve]:
    """Operand bytes, peak FLOP/s and efficiency curve of a matrix multiply."""
    gpu, precision = setting.gpu, setting.precision
    base = precision.base
    if part.label not in LOW_PRECISION or precision.name == base:
        return precision.value, gpu.peak[base] * setting.sustained, gpu.matmul[base]
    return precision.operand, gpu.peak[precision.peak] * setting.sustained, gpu.matmul[precision.name]
