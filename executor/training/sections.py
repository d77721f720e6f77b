"""The tables of a recipe, one frozen dataclass each; what a key takes and its default stand beside its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from executor.optimizers.settings import EXCLUSIONS, MASTERS, NAMES
from executor.training import reader
from planner.errors import Fault
from planner.families.table import unknown_keys
from planner.schedules import SCHEDULES
from planner.strategy import RECOMPUTE

METRICS = ("loss", "perplexity", "accuracy", "precision", "recall", "f1")
"""What an evaluation can tell; the last three, macro averages over the classes, of a classification alone."""
KINDS = ("python", "passages", "digits", "text", "labelled-text", "arrays")
OBJECTIVES = ("language-model", "masked-language-model", "classification")
PRECISIONS = ("fp32", "bf16")
CONTEXTS = ("ring", "all_gather", "ulysses")


@dataclass(frozen=True)
class ModelTable:
    """[model]: a catalogue name or a file, or the keys of a model TOML (`shape`) themselves."""

    name: str | None
    shape: Mapping[str, Any]


def model_table(table: Any, where: str, folder: Path, faults: list[Fault]) -> ModelTable:
    """`name = …` alone, or everything but a name; a name that ends like a file is relative to the recipe's folder."""
    if not isinstance(table, Mapping) or (not table and not faults):
        faults.append(Fault(where, 'expected name = "CATALOGUE NAME OR FILE", or the keys of a model TOML', table))
        return ModelTable(None, {})
    rest = {name: value for name, value in table.items() if name != "name"}
    name = table.get("name")
    if name is not None and rest:
        faults.append(Fault(where, f"has a name and keys of its own ({', '.join(rest)}); expected one of both"))
    if name is not None and not isinstance(name, str):
        faults.append(Fault(f"{where}.name", "expected a catalogue name or a path", name))
        name = None
    if name is not None and Path(name).suffix in (".toml", ".json"):
        name = str(folder / name)
    faults += unknown_keys(rest, where)
    return ModelTable(name, rest)


@dataclass(frozen=True)
class Data:
    """[data]: where samples are from (`executor.data`) and how they are split.

    `validation` and `test` are shares of the data, or the file or folder that holds them. `seq_len` [tokens]. A text's
    `pattern` picks files of a folder; `text` and `label` are the columns of a table (.jsonl, .csv, .parquet).
    """

    kind: Annotated[str, reader.choice(*KINDS)]
    objective: Annotated[str | None, reader.choice(*OBJECTIVES)] = None
    path: Annotated[Path | None, reader.path()] = None
    seq_len: Annotated[int, reader.count(2, 10**6)] = 128
    validation: Annotated[float | Path, reader.share_or_path()] = 0.1
    test: Annotated[float | Path, reader.share_or_path()] = 0.1
    pattern: Annotated[str, reader.text()] = "*.txt"
    text: Annotated[str, reader.text()] = "text"
    label: Annotated[str, reader.text()] = "label"


@dataclass(frozen=True)
class Optimizer:
    """[optimizer]: `name` as in the planner, the peak `learning_rate`, and what `settings.OPTIONS` lists for it."""

    name: Annotated[str, reader.choice(*NAMES)] = "adamw"
    learning_rate: Annotated[float, reader.number(0.0, 100.0, above=True)] = 1e-3
    betas: Annotated[tuple[float, float] | None, reader.numbers(0.0, 1.0, size=2)] = None
    epsilon: Annotated[float, reader.number(0.0, 1.0)] = 1e-8
    momentum: Annotated[float | None, reader.number(0.0, 1.0)] = None
    nesterov: Annotated[bool | None, reader.flag()] = None
    beta2_decay: Annotated[float, reader.number(-1.0, 0.0)] = -0.8
    clip: Annotated[float, reader.number(0.0, above=True)] = 1.0
    master: Annotated[str, reader.choice(*MASTERS)] = "fp32"


@dataclass(frozen=True)
class Regularisation:
    """[regularisation]. `exclude`: kinds of parameters without weight decay. `ema` is the decay of averaged weights.

    `patience`: evaluations without a better `metric` after which training stops and goes back to the best; 0 never.
    """

    weight_decay: Annotated[float, reader.number(0.0)] = 0.0
    exclude: Annotated[tuple[str, ...], reader.names(*EXCLUSIONS)] = EXCLUSIONS
    dropout: Annotated[float, reader.number(0.0, 0.99)] = 0.0
    label_smoothing: Annotated[float, reader.number(0.0, 0.99)] = 0.0
    ema: Annotated[float, reader.number(0.0, 0.999999)] = 0.0
    patience: Annotated[int, reader.count(0)] = 0
    metric: Annotated[str, reader.choice(*METRICS)] = "loss"


@dataclass(frozen=True)
class Batch:
    """[batch]: `size` samples per optimizer step, over all ranks."""

    size: Annotated[int, reader.count(1, 10**6)] = 8


@dataclass(frozen=True)
class Evaluation:
    """[evaluation]: after `every` steps (0: at the end alone) on `samples` of a split, the same each time (0: all)."""

    every: Annotated[int, reader.count(0)] = 0
    samples: Annotated[int, reader.count(0)] = 0
    metrics: Annotated[tuple[str, ...], reader.names(*METRICS)] = ("loss",)


@dataclass(frozen=True)
class Parallel:
    """[parallel]: the degrees of the axes and the planner's choices; ranks = tp · pp · cp · dp."""

    tp: Annotated[int, reader.count(1, 1024)] = 1
    pp: Annotated[int, reader.count(1, 1024)] = 1
    vpp: Annotated[int, reader.count(1, 1024)] = 1
    cp: Annotated[int, reader.count(1, 1024)] = 1
    ep: Annotated[int, reader.count(1, 1024)] = 1
    etp: Annotated[int, reader.count(1, 1024)] = 1
    dp: Annotated[int, reader.count(1, 1024)] = 1
    micro_batch: Annotated[int, reader.count(1, 10**6)] = 1
    zero: Annotated[int, reader.count(0, 3)] = 0
    schedule: Annotated[str, reader.choice(*SCHEDULES)] = "1f1b"
    recompute: Annotated[str, reader.choice(*RECOMPUTE)] = "none"
    precision: Annotated[str, reader.choice(*PRECISIONS)] = "fp32"
    sequence_parallel: Annotated[bool, reader.flag()] = True
    context: Annotated[str, reader.choice(*CONTEXTS)] = "ring"

    @property
    def ranks(self) -> int:
        """Ranks of the whole training."""
        return self.tp * self.pp * self.cp * self.dp


@dataclass(frozen=True)
class Run:
    """[run]: optimizer `steps`, checkpoints after `checkpoint_every` (0: none), the newest `keep` of them.

    `out` is the folder for everything written. `start_from` is the `out` of an earlier training, whose newest (or best)
    weights this one starts from. `timeout` [s] of one collective.
    """

    steps: Annotated[int, reader.count()] = 100
    seed: Annotated[int, reader.count(0, 2**31)] = 0
    device: Annotated[str, reader.choice("cpu", "cuda")] = "cpu"
    checkpoint_every: Annotated[int, reader.count(0)] = 0
    keep: Annotated[int, reader.count()] = 3
    out: Annotated[Path | None, reader.path()] = None
    start_from: Annotated[Path | None, reader.path()] = None
    timeout: Annotated[float, reader.number(1.0, 86400.0)] = 60.0


@dataclass(frozen=True)
class Search:
    """[search] for --tune: `trials` in ranges [least, most] (drawn evenly in the logarithm), batches out of a list.

    `steps` of the longest trial (0: those of the run); a range that is not given is not searched.
    """

    trials: Annotated[int, reader.count(2, 10_000)] = 12
    steps: Annotated[int, reader.count(0)] = 0
    learning_rate: Annotated[tuple[float, float] | None, reader.numbers(1e-9, 100.0, size=2)] = None
    weight_decay: Annotated[tuple[float, float] | None, reader.numbers(1e-9, 100.0, size=2)] = None
    batch: Annotated[tuple[int, ...] | None, reader.counts()] = None
