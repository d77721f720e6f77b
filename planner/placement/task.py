"""What the portfolio is asked, and what moving an expert may cost in it."""

from __future__ import annotations

from dataclasses import dataclass

from planner.placement.base import Expert, Grid, Placement, Rates
from planner.placement.costs import migration

MOST_MOVES = 400_000  # trial swaps of a search
PART = 3  # one slot in so many may change nodes in a re-plan, where no budget is given


@dataclass(frozen=True)
class Task:
    """What is asked: `slots` on `grid`, router `groups` (1: none), an `old` placement per layer or none.

    A migration is paid back over `horizon` passes through the layer and may move at most `budget` slots between nodes
    (None: a third of them); gradients of replicas are summed once per `micro_batches` passes. `per_batch`: the
    dispatcher splits each batch over the replicas by its own loads (see `split`), which metrics then show. `most` trial
    swaps a layer.
    """

    slots: int
    grid: Grid
    rates: Rates
    expert: Expert
    experts: int
    groups: int = 1
    old: tuple[Placement, ...] | None = None
    budget: int | None = None
    horizon: float = 1e5
    micro_batches: int = 64
    per_batch: bool = False
    seed: int = 0
    most: int = MOST_MOVES

    @property
    def allowed(self) -> int:
        """Slots of a layer that may change nodes."""
        return self.slots // PART if self.budget is None else self.budget

    def affords(self, new: Placement, old: Placement) -> bool:
        """Whether no more slots change nodes than may."""
        return migration(old, new, self.grid, self.rates, self.expert).between_nodes <= self.allowed

    @property
    def fetch(self) -> float:
        """What fetching an expert from another node costs a pass, in visits of a token to a node [1]."""
        visit = self.expert.hidden * (self.rates.dispatch_bytes + self.rates.combine_bytes)
        state = self.expert.parameters * (self.expert.param_bytes + self.expert.optimizer_bytes)
        return state / self.horizon / visit
