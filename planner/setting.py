"""What stays the same for a whole batch of candidates, and the few counts that everything is derived from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hwprofiles.spec import Cluster, Gpu, Tier
from planner import compression, fitted
from planner.compression import Compression
from planner.formula import Count, Num, formula
from planner.model import Model
from planner.optimizers import OPTIMIZERS, Optimizer
from planner.optimizers.base import master_bytes, weight_traffic
from planner.precision import PRECISIONS, Precision
from planner.stack import Stack, attention_kernel
from planner.strategy import Choices, Degrees, Workload


@dataclass(frozen=True)
class Routing:
    """How tokens spread over the ranks of ep, as a placement measured it; by default evenly and at random.

    `imbalance`: load of the fullest rank over the mean. `copies`: of each token of a rank, those that the busiest
    network card sends or receives; None for the expectation of uniform draws.
    """

    imbalance: float = 1.0
    copies: float | None = None


@dataclass(frozen=True)
class Teacher:
    """The model that a student is distilled from, and how its own GPUs are cut; None when it runs on the student's."""

    model: Model
    degrees: Degrees | None = None


@dataclass(frozen=True)
class Setting:
    """The scalar side of an estimate; the degrees are the other, batched side. `clock` overrides `sustained`.

    `model` is what is trained, pruned experts gone; `teacher` what it is distilled from, None where it is not.
    """

    model: Model
    cluster: Cluster
    workload: Workload
    choices: Choices
    stack: Stack
    clock: float | None = None
    pace: float | None = None
    routing: Routing = Routing()
    teacher: Teacher | None = None

    @property
    def gpu(self) -> Gpu:
        """The cluster's accelerator."""
        return self.cluster.gpu

    @property
    def sustained(self) -> float:
        """Rate under the load of whole steps over that of kernel benchmarks: clock, and multiprocessors left to it."""
        clock = fitted.sustained(self.gpu, self.precision.peak) if self.clock is None else self.clock
        return clock * (1.0 - self.stack.reserved_sms / self.gpu.sm_count)

    @property
    def attention_rate(self) -> float:
        """Rate of the stack's attention kernel over that of the GPU profile."""
        stack = self.stack
        return stack.attention_rate * attention_kernel(stack.attention_kernel, self.gpu.generation)

    @property
    def host_pace(self) -> float:
        """Time of the host's work over that on an x86 server."""
        return fitted.host_pace(self.cluster.node.host) if self.pace is None else self.pace

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Tiers of the network, innermost first."""
        return self.cluster.tiers

    @property
    def layer_tiers(self) -> tuple[Tier, ...]:
        """The tiers as a collective inside a layer finds them: the host's work for it is part of the launch."""
        gap = self.stack.collective_gap
        return tuple(replace(tier, launch=tier.launch + gap) for tier in self.tiers) if np.any(gap) else self.tiers

    @property
    def precision(self) -> Precision:
        """The number format of the matrix multiplies."""
        return PRECISIONS[self.choices.precision]

    @property
    def weight(self) -> float:
        """Bytes of a resident weight; a GPU with fp4 multiplies fp8 in any orientation and needs no transposed copy."""
        spare = self.precision.name == "fp8" and "fp4" in self.gpu.peak
        return self.precision.weight - spare * 1.0

    @property
    def value(self) -> float:
        """Bytes of an activation or of a value in a message."""
        return self.precision.value

    @property
    def lean(self) -> bool:
        """Whether messages that allow it go in fp8."""
        return self.choices.messages == "fp8"

    @property
    def gathered(self) -> float:
        """Bytes of a parameter that ZeRO gathers; fp8 weights travel as they are multiplied (fp8-param-gather)."""
        return 1.0 if self.lean else self.value

    @property
    def dispatched(self) -> float:
        """Bytes of a value on its way to an expert, or of its gradient; fp8 with an fp32 scale for 128 values."""
        return 1.0 + 4.0 / 128.0 if self.lean else self.value

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer's state and traffic."""
        return OPTIMIZERS[self.choices.optimizer]

    @property
    def pruning(self) -> Compression:
        """How weights are pruned; `none` where they are not."""
        return compression.get(self.choices.prune, "prune", "--prune")

    @property
    def quantizing(self) -> Compression:
        """How weights are quantized when stored, and trained for it; `none` where they are not."""
        return compression.get(self.choices.quantize, "quantize", "--quantize")

    @property
    def compressions(self) -> tuple[Compression, ...]:
        """The methods in use; empty for a plan without any."""
        return tuple(each for each in (self.pruning, self.quantizing) if each.kind != "none")

    @property
    def master(self) -> float:
        """Bytes of the copy of a weight that the optimizer updates, beside the resident weight."""
        return master_bytes(self.choices.master, self.precision)

    @property
    def weight_traffic(self) -> float:
        """Bytes that the update moves for the weight of one parameter and its copy."""
        return weight_traffic(self.choices.master, self.precision)


@formula(unit="tokens", source="micro_batch · seq_len / cp")
def tokens(setting: Setting, degrees: Degrees) -> Num:
    """Tokens of one micro-batch that a tensor-parallel group works on."""
    return degrees.micro_batch * (setting.workload.seq_len / degrees.cp)


@formula(unit="tokens", source="Korthikanti 2022: sequence parallelism splits the tokens of a group over tp")
def sharded_tokens(setting: Setting, degrees: Degrees) -> Num:
    """Tokens per rank where sequence parallelism splits them over tp."""
    whole = tokens(setting, degrees)
    return whole / degrees.tp if setting.choices.sequence_parallel else whole


def micro_batch_count(setting: Setting, degrees: Degrees) -> Count:
    """Micro-batches per step and pipeline: global_batch / (dp · micro_batch)."""
    return setting.workload.global_batch // (degrees.dp * degrees.micro_batch)
