"""What stays the same for a whole batch of candidates: model, cluster, workload, choices and stack."""

from __future__ import annotations

from dataclasses import dataclass

from hwprofiles.spec import Cluster, Gpu, Tier
from planner.model import Model
from planner.optimizers import OPTIMIZERS, Optimizer
from planner.precision import PRECISIONS, Precision
from planner.stack import Stack
from planner.strategy import Choices, Workload


@dataclass(frozen=True)
class Setting:
    """The scalar side of an estimate; the degrees are the other, batched side."""

    model: Model
    cluster: Cluster
    workload: Workload
    choices: Choices
    stack: Stack

    @property
    def gpu(self) -> Gpu:
        """The cluster's accelerator."""
        return self.cluster.gpu

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Tiers of the network, innermost first."""
        return self.cluster.tiers

    @property
    def precision(self) -> Precision:
        """The number format of the matrix multiplies."""
        return PRECISIONS[self.choices.precision]

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer's state and traffic."""
        return OPTIMIZERS[self.choices.optimizer]
