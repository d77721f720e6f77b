"""TensorBoard scalars below out/tensorboard, where the package tensorboard is installed; nothing without it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class Board:
    """Writes scalars of one rank; with `out` None, or without the package, it writes nothing."""

    def __init__(self, out: Path | None) -> None:
        """Open the file."""
        self._writer: Any = None
        if out is not None and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  optional

            self._writer = SummaryWriter(str(out / FOLDER))

    def scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """`values` of a step as group/name."""
        if self._writer is not None:
            for name, value in values.items():
                if name != "step":
                    self._writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
