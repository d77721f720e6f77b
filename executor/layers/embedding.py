"""Twins of planner.layers.embedding: token lookup, learned positions and token types, an optional norm; patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from executor.layers.base import Spec
from executor.layers.norm import norm
from planner.layers.base import Convolution


class Embedding(nn.Module):
    """tokens[id] + positions[place] + types[type], normed where the model does."""

    def __init__(self, spec: Spec) -> None:
        """The embedding of a model's parts."""
        super().__init__()
        tokens = spec.table("tokens")
        self.tokens = nn.Embedding(tokens.rows, tokens.width)
        self.positions = _table(spec, "positions")
        self.types = _table(spec, "types")
        self.norm = norm(spec, "embedding_norm") if "embedding_norm" in spec.names else None

    def forward(self, tokens: Tensor, positions: Tensor, types: Tensor | None = None) -> Tensor:
        """Token ids [b, s] at `positions` [s], of `types` [b, s] (None: all 0) -> [b, s, hidden]."""
        x = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions(positions)
        if self.types is not None:
            x = x + self.types(torch.zeros_like(tokens) if types is None else types)
        return x if self.norm is None else self.norm(x)  # type: ignore[no-any-return]


class Patches(nn.Module):
    """[class token, patches of an image as one matrix multiplies them] + positions."""

    def __init__(self, spec: Spec) -> None:
        """The embedding of a model's parts."""
        super().__init__()
        part = spec.linear("patches")
        if not isinstance(part, Convolution):
            raise TypeError(part.name)
        self.patches = nn.Conv2d(part.channels, part.outputs, part.kernel, part.stride)
        self.class_token = nn.Parameter(torch.empty(part.outputs))
        self.positions = nn.Embedding(spec.table("positions").rows, part.outputs)

    def forward(self, images: Tensor, positions: Tensor, types: Tensor | None = None) -> Tensor:
        """Images [b, channels, side, side] -> [b, 1 + patches, hidden]."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        first = self.class_token.to(x.dtype).expand(x.size(0), 1, -1)
        places = torch.arange(x.size(1) + 1, device=x.device)
        return torch.cat((first, x), 1) + self.positions(places)  # type: ignore[no-any-return]


def _table(spec: Spec, name: str) -> nn.Embedding | None:
    if name not in spec.names:
        return None
    part = spec.table(name)
    return nn.Embedding(part.rows, part.width)
