"""FLOP of the products that a pruned model still has to do: two for each weight that isn't zero and each row.

A kernel that skips zeros would execute these; the CPU's doesn't skip, so they are counted and not timed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from executor.layers.moe import Experts


@torch.no_grad()
def executed(module: nn.Module, inputs: Tensor, extra: Mapping[str, Tensor] | None = None) -> int:
    """FLOP of all products with weights in one forward pass of `inputs`, zeros left out."""
    found: list[int] = []

    def matrix(part: nn.Module, _inputs: Any, output: Tensor) -> None:
        weight = part.get_parameter("weight")
        found.append(2 * int(weight.count_nonzero()) * (output.numel() // weight.size(0)))

    def mixture(part: nn.Module, given: tuple[Any, ...], _output: Tensor) -> None:
        counts = given[1]
        for name, weight in part.named_parameters():
            if weight.dim() == 3 and "bias" not in name:
                found.append(2 * int((weight.count_nonzero((1, 2)) * counts).sum()))

    handles = [
        part.register_forward_hook(mixture if isinstance(part, Experts) else matrix)
        for part in module.modules()
        if isinstance(part, Experts | nn.Linear | nn.Conv2d)
    ]
    try:
        module(inputs, **(extra or {}))
    finally:
        for handle in handles:
            handle.remove()
    return sum(found)
