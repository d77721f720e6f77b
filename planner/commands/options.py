"""Options that several commands share, and the plan that they describe."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from hwprofiles import quantity
from planner import catalog
from planner.errors import Fault, InputError
from planner.optimizers import OPTIMIZERS
from planner.plan import Plan, prepare
from planner.precision import PRECISIONS
from planner.strategy import Choices, Workload

LARGEST = 10**9  # GPUs or sequences beyond this are a slip of the keyboard
SEQ_LEN = 4096
LARGEST_RUN = 10**18  # and tokens of a run


class Count(click.ParamType[int]):
    """A whole number from 1 to `largest`, written 10240, 10k or 15T."""

    name = "count"

    def __init__(self, largest: int = LARGEST) -> None:
        """Keep the largest number that makes sense."""
        self.largest = largest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse; a wrong value is an input error that names the option."""
        if isinstance(value, int):
            return value
        where = f"--{(param.name or 'value').replace('_', '-')}" if param else "value"
        found = quantity.parse(str(value), "count", where)
        if found < 1 or found != math.floor(found) or found > self.largest:
            expected = f"expected a whole number of at least 1 and at most {self.largest:,}"
            raise InputError(Fault(where, expected, value))
        return int(found)


class Finite(click.FloatRange):
    """A number in a range; NaN, which passes every range, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse and check; a usage error when it is none."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


COUNT = Count()
TOKENS = Count(LARGEST_RUN)


@dataclass(frozen=True)
class Common:
    """The options of `inputs`, as given."""

    model: str
    cluster: str
    seq_len: int | None
    global_batch: int
    tokens: int
    precision: str
    optimizer: str
    stack: str
    calibration: str | None

    def plan(self, gpus: int, cluster: str | None = None) -> Plan:
        """Resolve everything; InputError with all faults."""
        workload = Workload(self.seq_len or _usual(self.model), self.global_batch, float(self.tokens))
        choices = Choices(precision=self.precision, optimizer=self.optimizer)
        names = (self.model, cluster or self.cluster, gpus, workload, choices, self.stack)
        return prepare(*names, self.calibration or "")


def _usual(model: str) -> int:
    """The sequence of a model where none is given: as many tokens as it can take, up to `SEQ_LEN`."""
    try:
        return min(catalog.load(model).longest or SEQ_LEN, SEQ_LEN)
    except InputError:
        return SEQ_LEN  # the model is refused when the plan is prepared, with all other faults


def inputs(function: Callable[..., Any]) -> Callable[..., Any]:
    """MODEL and the options that describe cluster and workload, given to the command as `common`."""

    def gathered(**options: Any) -> Any:
        names = Common.__dataclass_fields__
        common = Common(**{name: options.pop(name) for name in names})
        return function(common=common, **options)

    gathered.__doc__ = function.__doc__
    gathered.__name__ = function.__name__
    gathered.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


_OPTIONS = (
    click.argument("model"),
    click.option("--cluster", required=True, help="A catalogue name or a TOML file; `plan hardware` lists them."),
    click.option(
        "--seq-len",
        type=COUNT,
        help=f"Tokens per sequence; {SEQ_LEN} unless given, or as many as the model has positions for.",
    ),
    click.option("--global-batch", type=COUNT, default="2048", show_default=True, help="Sequences per step."),
    click.option("--tokens", type=TOKENS, default="15T", show_default=True, help="Tokens of the whole run."),
    click.option("--precision", type=click.Choice(list(PRECISIONS)), default="bf16", show_default=True),
    click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="adam", show_default=True),
    click.option("--stack", default="nemo", show_default=True, help="Software stack."),
    click.option("--calibration", metavar="FILE", help="Numbers measured by `plan calibrate` over the profiles."),
)
