"""A recipe: one TOML file that describes a training, as frozen values. Needs no torch.

recipe = read(Path("examples/dense-lm.toml"))   # InputError with every fault of the file
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from executor.training import sections, sense
from executor.training.method import methods
from executor.training.reader import read as read_table
from executor.training.schedule import Schedule
from planner.errors import Fault, InputError, nearest

LARGEST = 2**20  # bytes; a recipe has some kB


@dataclass(frozen=True)
class Recipe:
    """The tables of a recipe; `compression` as it stands in the file, checked by the methods that it names.

    `path` is the file, `table` its content.
    """

    path: Path
    table: Mapping[str, Any]
    model: sections.ModelTable
    data: sections.Data
    optimizer: sections.Optimizer = field(default_factory=sections.Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    regularisation: sections.Regularisation = field(default_factory=sections.Regularisation)
    batch: sections.Batch = field(default_factory=sections.Batch)
    evaluation: sections.Evaluation = field(default_factory=sections.Evaluation)
    parallel: sections.Parallel = field(default_factory=sections.Parallel)
    run: sections.Run = field(default_factory=sections.Run)
    search: sections.Search = field(default_factory=sections.Search)
    compression: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the file without its ending."""
        return self.path.stem

    @property
    def where(self) -> str:
        """How faults call the file."""
        return self.path.name


TABLES: dict[str, type[Any]] = {
    "data": sections.Data,
    "optimizer": sections.Optimizer,
    "schedule": Schedule,
    "regularisation": sections.Regularisation,
    "batch": sections.Batch,
    "evaluation": sections.Evaluation,
    "parallel": sections.Parallel,
    "run": sections.Run,
    "search": sections.Search,
}


def read(path: Path) -> Recipe:
    """The recipe in a file; InputError with every fault of it."""
    return of_table(parse(path), path)


def of_table(table: Mapping[str, Any], path: Path) -> Recipe:
    """The recipe of a parsed table, whose relative paths start where `path` lies."""
    where, folder = path.name, path.parent
    known = ("model", "compression", *TABLES)
    faults = [
        Fault(f"{where}: {name}", "no such table", nearest=nearest(name, known)) for name in table if name not in known
    ]
    faults += [Fault(f"{where}: {name}", "the table is missing") for name in ("model", "data") if name not in table]
    found = {
        name: read_table(made, table[name], f"{where}: {name}", folder, faults)
        for name, made in TABLES.items()
        if name in table
    }
    model = sections.model_table(table.get("model", {}), f"{where}: model", folder, faults)
    compression = table.get("compression", {})
    if not isinstance(compression, Mapping):
        faults.append(Fault(f"{where}: compression", "expected tables [compression.METHOD]", compression))
        compression = {}
    try:
        methods(compression, f"{where}: compression")
    except InputError as error:
        faults += error.faults
    if faults:
        raise InputError(*faults)
    recipe = Recipe(path, table, model, **found, compression=compression)
    faults += sense.faults(recipe.table, recipe, where)
    if faults:
        raise InputError(*faults)
    return recipe


def parse(path: Path) -> dict[str, Any]:
    """The tables of a file, not yet checked; InputError when it can't be read as TOML."""
    where = str(path)
    try:
        if path.is_dir():
            raise InputError(Fault(where, "is a directory; expected a recipe in TOML"))
        if path.stat().st_size > LARGEST:
            raise InputError(Fault(where, f"expected at most {LARGEST} bytes", path.stat().st_size))
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        others = [each.name for each in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise InputError(Fault(where, "no such file", nearest=nearest(path.name, others))) from None
    except UnicodeDecodeError as error:
        raise InputError(Fault(where, f"expected UTF-8; byte {error.start} isn't")) from None
    except OSError as error:
        raise InputError(Fault(where, f"can't be read: {error.strerror}")) from None
    except (ValueError, RecursionError) as error:
        raise InputError(Fault(where, f"isn't valid TOML: {error}")) from None


def keys(table: str) -> list[str]:
    """The keys of one of `TABLES`, for documents and tests."""
    return [each.name for each in fields(TABLES[table])]
