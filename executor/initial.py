"""First values of the parameters, from the seed and the parameter's name alone: any slice of a model starts alike."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

BRANCH_ENDS = ("attention.out.weight", "ffn.down.weight", "shared.down.weight", "experts.down")
"""Matrices that write to the residual stream, drawn smaller the deeper the model (Radford 2019, GPT-2)."""
EMBEDDINGS = (".tokens.weight", ".positions.weight", ".types.weight")


def fill(module: nn.Module, *, seed: int, depth: int, dtype: torch.dtype, aliases: dict[str, str]) -> None:
    """Give each parameter of `module` its values in `dtype`, in place; buffers are fp32, running variances 1, others 0.

    `depth` decoder layers in the whole model; `aliases`: parameters that start as another one, by name.
    """
    for name, parameter in module.named_parameters():
        drawn = values(aliases.get(name, name), parameter, seed=seed, depth=depth)
        parameter.data = drawn.to(device=parameter.device, dtype=dtype)
    for name, buffer in module.named_buffers():
        buffer.fill_(float(name.endswith("running_var")))


def values(name: str, like: Tensor, *, seed: int, depth: int) -> Tensor:
    """First values of a parameter of the shape of `like`, fp32: gains 1, biases 0, matrices normal.

    Convolutions twice the variance, as a rectifier behind them halves it (He 2015, arXiv:1502.01852).
    """
    last = name.rsplit(".", 1)[-1]
    if "bias" in last or last in {"sinks", "correction", "class_token"}:
        return torch.zeros(like.shape)
    if like.dim() == 1:
        return torch.ones(like.shape)
    if like.is_meta:
        return torch.empty(like.shape, device="meta")
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    inputs = float(like.size(1) if like.dim() == 2 or name.endswith(EMBEDDINGS) else like.size(-2))
    if ".convolutions." in name or name.endswith(".patches.weight"):
        inputs = like[0].numel() / (2 if ".convolutions." in name else 1)
    scale = inputs**-0.5 * ((2 * depth) ** -0.5 if name.endswith(BRANCH_ENDS) else 1.0)
    return torch.randn(like.shape, generator=generator).mul_(scale)
