"""Activation recompute: none, selective or full, by torch's checkpointing of whole layers.

Selective keeps what is dear to compute (matrix products, attention, collectives) and repeats the rest: norms,
activations, rotations. Full keeps a layer's input alone.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import SAC_IGNORED_OPS, CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from executor.model import Decoder
from executor.parallel.blocks import blocks
from executor.parallel.deferred import entered
from executor.parallel.ring import ring_attention

_aten, _profiler, _collective = torch.ops.aten, torch.ops.profiler, torch.ops._c10d_functional  # noqa: SLF001 (no public name)
KEPT = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten.bmm.default,
        ring_attention._opoverload,  # noqa: SLF001
        _aten._scaled_dot_product_flash_attention_for_cpu.default,  # noqa: SLF001
        _aten._scaled_dot_product_flash_attention.default,  # noqa: SLF001
        _aten._scaled_dot_product_efficient_attention.default,  # noqa: SLF001
        _aten._scaled_dot_product_cudnn_attention.default,  # noqa: SLF001
        _collective.all_gather_into_tensor.default,
        _collective.reduce_scatter_tensor.default,
        _collective.all_reduce.default,
        _collective.all_to_all_single.default,
        _collective.wait_tensor.default,
    }
)
_repeats: list[bool] = []

# FSDP2's labels for the profiler: a repeated pass may have more of them than the first
SAC_IGNORED_OPS.update(
    {
        _profiler._record_function_enter_new.default,  # noqa: SLF001
        _profiler._record_function_exit.default,  # noqa: SLF001
        _profiler._record_function_exit._RecordFunction,  # noqa: SLF001
    }
)


def recomputing() -> bool:
    """Whether the forward pass that runs now repeats an earlier one, so that statistics must not count it again."""
    return bool(_repeats)


def apply_recompute(model: Decoder, mode: str) -> None:
    """Make each layer drop its activations in the way of `mode` (none, selective, full); names stay as they are."""
    if mode == "none":
        return
    contexts = _selective if mode == "selective" else _full
    for layer in blocks(model):
        # inside the layer's own hooks and under its own name, unlike torch's wrapper
        layer.forward = partial(  # type: ignore[method-assign]
            checkpoint,
            layer.forward,
            use_reentrant=False,
            context_fn=contexts,
            preserve_rng_state=False,
            determinism_check="none",
        )


def _full() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _Marked(nullcontext())


def _selective() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    first, again = create_selective_checkpoint_contexts(_policy)
    return first, _Marked(again)


def _policy(_context: Any, operation: Any, *_arguments: Any, **_options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


class _Marked:
    """A context that says `recomputing`, and defers weight gradients again where the first pass did."""

    def __init__(self, inner: AbstractContextManager[Any]) -> None:
        self.contexts = [inner, *entered()]

    def __enter__(self) -> None:
        _repeats.append(True)
        for each in self.contexts:
            each.__enter__()

    def __exit__(self, *failure: object) -> None:
        for each in reversed(self.contexts):
            each.__exit__(*failure)
        _repeats.pop()
