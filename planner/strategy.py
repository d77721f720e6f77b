"""A strategy: the degrees of the parallel axes (numbers, one plan or a million) and the choices (categories)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.batch_size import Spent, Stage, schedule
from planner.formula import Count

RECOMPUTE = ("none", "selective", "full")
ZERO = (0, 1, 2, 3)
MESSAGES = ("base", "fp8")
ORDERS = ("tp-cp-ep-dp-pp", "tp-cp-ep-pp-dp")


@dataclass(frozen=True)
class Degrees:
    """The numbers of a strategy; each field is an int or an int64 array [n], one entry per candidate.

    `world` GPUs = tp · cp · dp · pp; the experts fold the same ranks as etp · ep · edp · pp. `vpp` chunks per stage,
    `micro_batch` sequences, `replicas` copies of the sharded states (1: ZeRO over all of dp · cp, more: hybrid shards).
    """

    world: Count
    tp: Count = 1
    pp: Count = 1
    vpp: Count = 1
    cp: Count = 1
    ep: Count = 1
    etp: Count = 1
    micro_batch: Count = 1
    replicas: Count = 1

    @cached_property
    def dp(self) -> Count:
        """Data-parallel replicas of the dense part."""
        return self.world // (self.tp * self.pp * self.cp)

    @cached_property
    def edp(self) -> Count:
        """Data-parallel replicas of the experts."""
        return self.world // (self.pp * self.ep * self.etp)

    def take(self, index: NDArray[np.integer[Any]] | int) -> Degrees:
        """The candidates at `index`; an int gives one plan of plain ints."""
        values = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        picked = {name: array if array.ndim == 0 else array[index] for name, array in values.items()}
        if isinstance(index, int):
            return Degrees(**{name: int(array) for name, array in picked.items()})
        return Degrees(**picked)


@dataclass(frozen=True)
class Choices:
    """The categories of a strategy.

    `order` is the rank order, innermost axis first (which axis gets the nearest neighbours); `sequence_parallel` shards
    the tokens of norms over tp; `optimizer` names the states kept per parameter, `master` the copy of the weights that
    it updates. `prune` and `quantize` name a compression (`planner.compression`); `distill_from` the teacher's model,
    on `teacher_gpus` GPUs of its own, or on all of them beside the student where it is 0, and `teacher_topk` of its
    logits a token, 0 for all. `messages`: base, or fp8 for gathered parameters and tokens on their way to experts.
    """

    schedule: str = "1f1b"
    recompute: str = "none"
    zero: int = 1
    precision: str = "bf16"
    order: str = ORDERS[0]
    sequence_parallel: bool = True
    optimizer: str = "adam"
    master: str = "fp32"
    prune: str = "none"
    quantize: str = "none"
    distill_from: str = "none"
    teacher_gpus: int = 0
    teacher_topk: int = 0
    messages: str = "base"


@dataclass(frozen=True)
class Workload:
    """What is trained: `seq_len` tokens per sequence, `global_batch` sequences per step, `tokens` in the whole run.

    With a `critical_batch` [tokens] (`law` says where from; 0: none stated) `tokens` are those that very small batches
    need, and the batch decides how many the run takes. `ramp` are the stages before steps of `global_batch`.
    """

    seq_len: int
    global_batch: int
    tokens: float
    critical_batch: float = 0.0
    law: str = ""
    ramp: tuple[Stage, ...] = ()

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimizer step."""
        return self.seq_len * self.global_batch

    def spent(self) -> list[Spent]:
        """The stages of the run, with the tokens and steps that each takes."""
        stages = (*self.ramp, Stage(self.global_batch))
        return schedule(self.tokens, self.seq_len, stages, self.critical_batch)
