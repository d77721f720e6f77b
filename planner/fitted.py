"""Parameters of mechanisms that kernels can't give, fitted on published runs (`planner.fit`, `make fit`).

They overlay the a-priori values of a stack; `sustained` is the clock under the load of whole steps over that of kernel
benchmarks, by GPU generation.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def table() -> dict[str, Any]:
    """The file `planner/data/fitted.toml`."""
    text = resources.files("planner").joinpath("data", "fitted.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def of_stack(name: str) -> dict[str, float]:
    """Fitted fields of a stack; none when no run of it was seen."""
    found: dict[str, float] = table().get("stacks", {}).get(name, {})
    return found


def sustained(generation: str) -> float:
    """Sustained over benchmark clock of a GPU generation, that of all when unseen; a CPU core holds its own."""
    if generation == "cpu":
        return 1.0
    found: dict[str, float] = table()["sustained"]
    return found.get(generation, found["all"])
