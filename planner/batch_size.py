"""How many tokens a run needs at a batch size: the critical batch, and schedules that grow the batch (ramp-up).

Below the critical batch a larger batch saves steps for nearly the same tokens, above it for nearly as many more tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hwprofiles import quantity
from planner.errors import Fault, InputError
from planner.formula import Num, formula

TRADE = "McCandlish 2018, arXiv:1812.06162: (S/S_min - 1)(E/E_min - 1) = 1, B_crit = E_min/S_min"
SCALE, POWER = 2.1e8, 4.8  # B_crit [tokens] = SCALE / loss ** POWER (Kaplan 2020, figure 10)
BY_LOSS = "Kaplan 2020, arXiv:2001.08361, figure 10: 2.1e8 tokens / loss^4.8, fitted on WebText2 (nats a token)"
GIVEN = "as stated"
GROWS = (
    "The critical batch grows as the loss falls and with the tokens of the run, and hardly with the model's size "
    "(Zhang 2024, arXiv:2410.21676; Bergsma 2025, arXiv:2505.13738): one number for the whole run is that of its end."
)
LOSSES = (0.5, 20.0)  # nats a token: below any language model, above a uniform guess over any vocabulary
LARGEST = 10**12  # tokens of a batch; more is a slip of the keyboard
CURVE = tuple(2.0**power for power in range(-6, 7))  # batches of the chart, over the critical one


@dataclass(frozen=True)
class Stage:
    """Steps of `global_batch` sequences until the run has seen `until` tokens; the last stage has no end."""

    global_batch: int
    until: float = math.inf


@formula(unit="tokens", source=TRADE)
def tokens_to_target(minimum: Num, batch: Num, critical: Num) -> Num:
    """Tokens that reach a loss with steps of `batch` tokens, `minimum` of them with very small steps."""
    return minimum * (1.0 + batch / critical)


@formula(unit="steps", source=TRADE)
def steps_to_target(minimum: Num, batch: Num, critical: Num) -> Num:
    """Steps that reach the loss that `minimum` tokens of very small steps reach: S_min · (1 + critical / batch)."""
    return minimum / critical * (1.0 + critical / batch)


@formula(unit="tokens", source=BY_LOSS)
def critical_batch(loss: Num) -> Num:
    """The critical batch at a training loss in nats a token."""
    return SCALE / loss**POWER


def parse_critical(text: str, where: str = "--critical-batch") -> tuple[float, str]:
    """`8M` tokens, or `loss:1.9`: the critical batch [tokens] and the law that it is from; InputError otherwise."""
    name, colon, amount = text.partition(":")
    if not colon:
        found = quantity.parse(text, "count", where)
        if not 1 <= found <= LARGEST:
            raise InputError(Fault(where, f"expected 1 to {LARGEST:,} tokens", text))
        return found, GIVEN
    try:
        loss = float(amount)
    except ValueError:
        loss = math.nan
    if name != "loss" or not LOSSES[0] <= loss <= LOSSES[1]:
        expected = f"expected tokens (8M) or loss:NATS with a loss from {LOSSES[0]} to {LOSSES[1]}"
        raise InputError(Fault(where, expected, text))
    return float(critical_batch(loss)), f"{BY_LOSS}; loss {loss:g}"


def parse_ramp(text: str, where: str = "--ramp-up") -> tuple[Stage, ...]:
    """`512@250B,1024@3T`: sequences a step until the run has seen so many tokens; InputError with every fault."""
    stages: list[Stage] = []
    faults: list[Fault] = []
    for piece in (piece.strip() for piece in text.split(",")):
        batch, at, until = piece.partition("@")
        if not at or not batch.isdecimal() or int(batch) < 1:
            faults.append(Fault(where, "expected SEQUENCES@TOKENS, separated by commas", piece))
            continue
        try:
            stages.append(Stage(int(batch), quantity.parse(until, "count", where)))
        except InputError as error:
            faults += error.faults
    if not faults:
        faults = ramp_faults(stages, where)
    if faults:
        raise InputError(*faults)
    return tuple(stages)


def ramp_faults(stages: Sequence[Stage], where: str) -> list[Fault]:
    """What is wrong with the order of the stages: each must end later, and with more sequences, than the one before."""
    faults = []
    for before, after in pairwise(stages):
        if after.until <= before.until:
            faults.append(Fault(where, f"a stage must end after {before.until:.4g} tokens", after.until))
        if after.global_batch <= before.global_batch:
            faults.append(Fault(where, f"a batch must be larger than {before.global_batch}", after.global_batch))
    return faults


@dataclass(frozen=True)
class Spent:
    """A stage of a run: its batch [sequences], the tokens it takes, and its steps."""

    global_batch: int
    tokens: float
    steps: int


def schedule(tokens: float, seq_len: int, stages: Sequence[Stage], critical: float) -> list[Spent]:
    """The stages of a run that needs `tokens`, with `critical` > 0 at very small batches; the last takes the rest.

    A token of a step of B tokens counts as 1 / (1 + B / critical) of one: the progress of a step is that of a very
    large one over 1 + critical / B (McCandlish 2018, arXiv:1812.06162).
    """
    left, seen, spent = tokens, 0.0, []
    for stage in stages:
        batch = stage.global_batch * seq_len
        price = 1.0 + batch / critical if critical else 1.0
        takes = min(stage.until - seen, left * price)
        if takes > 0:
            steps = math.ceil(takes / batch)
            spent.append(Spent(stage.global_batch, takes, steps))
            seen, left = seen + takes, left - takes / price
    return spent
