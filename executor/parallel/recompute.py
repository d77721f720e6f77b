"""Activation recompute of a stage: none, selective or full.

Full keeps a layer's input alone and runs its forward pass again (torch's checkpoint). Selective rebuilds what is cheap,
norms and activations and MLA's up-projections, and runs nothing else twice (executor.layers.rebuild).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from executor.layers.block import Block
from executor.layers.rebuild import apply_selective
from executor.model import Decoder
from executor.parallel.blocks import blocks
from executor.parallel.deferred import entered

_repeats: list[bool] = []


def recomputing() -> bool:
    """Whether the forward pass that runs now repeats an earlier one, so that statistics must not count it again."""
    return bool(_repeats)


def apply_recompute(model: Decoder, mode: str, *, random: bool = False) -> None:
    """Make each layer drop its activations in the way of `mode` (none, selective, full); names stay as they are.

    `random`: the layer draws random numbers, the same ones when it runs again.
    """
    for layer in blocks(model):
        if mode == "selective" and isinstance(layer, Block):
            apply_selective(layer)  # between convolutions nothing is cheap to make again
        elif mode == "full":
            # inside the layer's own hooks and under its own name, unlike torch's wrapper
            layer.forward = partial(  # type: ignore[method-assign]
                checkpoint,
                layer.forward,
                use_reentrant=False,
                context_fn=_contexts,
                preserve_rng_state=random,
                determinism_check="none",
            )


def _contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _Repeated()


class _Repeated:
    """A context that says `recomputing`, and defers weight gradients again where the first pass did."""

    def __init__(self) -> None:
        self.contexts = entered()

    def __enter__(self) -> None:
        _repeats.append(True)
        for each in self.contexts:
            each.__enter__()

    def __exit__(self, *failure: object) -> None:
        for each in reversed(self.contexts):
            each.__exit__(*failure)
        _repeats.pop()
