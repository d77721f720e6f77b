"""How weights are updated, as a recipe states it. Needs no torch.

`NAMES` are the planner's names of optimizers: "sgd" has momentum and "sgd-plain" none, as in its table.
"""

from __future__ import annotations

from dataclasses import dataclass

MASTERS = ("fp32", "bf16", "bf16-stochastic")
EXCLUSIONS = ("norms", "biases", "embeddings")
ADAM = frozenset({"betas", "epsilon"})
SGD = frozenset({"momentum", "nesterov"})
OPTIONS: dict[str, frozenset[str]] = {
    "adam": ADAM,
    "adamw": ADAM,
    "adam-bf16": ADAM,
    "adam-8bit": ADAM,
    "sgd": SGD,
    "sgd-plain": frozenset(),
    "adafactor": frozenset({"beta2_decay"}),
    "muon": ADAM | {"momentum", "nesterov"},
    "lion": frozenset({"betas"}),
}
"""Optimizers and what each takes beside learning rate and weight decay."""
NAMES = tuple(OPTIONS)
MOMENTUM = {"muon": 0.95, "sgd-plain": 0.0}  # Muon's of Jordan 2024; 0.9 elsewhere
BETAS = {"lion": (0.9, 0.99)}  # Chen 2023, arXiv:2302.06675; (0.9, 0.999) elsewhere


@dataclass(frozen=True)
class Update:
    """One optimizer step: learning rate, decay, and what `OPTIONS` lists; None where the optimizer's own value holds.

    `weight_decay` leaves out the parameters of the kinds in `exclude` (`EXCLUSIONS`). `clip` [L2 norm] of all
    gradients. `master`: weights kept in fp32, or rounded to bf16 values after each step, to the nearest or at random
    from `seed`.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    exclude: tuple[str, ...] = ()
    betas: tuple[float, float] | None = None
    epsilon: float = 1e-8
    momentum: float | None = None
    nesterov: bool | None = None
    beta2_decay: float = -0.8
    clip: float = 1.0
    master: str = "fp32"
    seed: int = 0

    def betas_of(self, name: str) -> tuple[float, float]:
        """Decay of the two moments of optimizer `name`."""
        return self.betas or BETAS.get(name, (0.9, 0.999))

    def momentum_of(self, name: str) -> float:
        """Momentum of optimizer `name`."""
        return MOMENTUM.get(name, 0.9) if self.momentum is None else self.momentum

    def nesterov_of(self, name: str) -> bool:
        """Whether the momentum of optimizer `name` looks ahead: Muon's does."""
        return name == "muon" if self.nesterov is None else self.nesterov


def plain(learning_rate: float, name: str) -> Update:
    """What a plan trains with that says no more than its optimizer: torch's defaults, without decay for SGD."""
    return Update(learning_rate, weight_decay=0.0 if name in {"sgd", "sgd-plain"} else 0.01)
