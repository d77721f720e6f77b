"""Parameters of mechanisms that kernels can't give, fitted on published runs (`planner.fit`, `make fit`).

They overlay the a-priori values of a stack; `sustained` is the clock under the load of whole steps over that of kernel
benchmarks, by GPU generation.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from hwprofiles.spec import Gpu


@cache
def table() -> dict[str, Any]:
    """The file `planner/data/fitted.toml`."""
    text = resources.files("planner").joinpath("data", "fitted.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def of_stack(name: str) -> dict[str, float]:
    """Fitted fields of a stack; none when no run of it was seen."""
    found: dict[str, float] = table().get("stacks", {}).get(name, {})
    return found


def sustained(gpu: Gpu, form: str) -> float:
    """Sustained over benchmark clock of a GPU at a number format, else of its generation; a CPU core holds its own."""
    if gpu.generation == "cpu":
        return 1.0
    found: dict[str, Any] = table()["sustained"]
    own = found.get(gpu.name, {})
    return float(own.get(form, found.get(gpu.generation, found["all"])))


def host_pace(host: str) -> float:
    """Time of the host's work on a CPU of this make over that on an x86 server."""
    return float(table()["host_pace"].get(host, 1.0))
