"""Twin of planner.layers.embedding: token lookup, learned positions, an optional norm."""

from __future__ import annotations

from torch import Tensor, nn

from executor.layers.base import Spec
from executor.layers.norm import norm


class Embedding(nn.Module):
    """tokens[id] + positions[place], normed where the model does."""

    def __init__(self, spec: Spec) -> None:
        """The embedding of a model's parts."""
        super().__init__()
        tokens = spec.table("tokens")
        self.tokens = nn.Embedding(tokens.rows, tokens.width)
        learned = spec.table("positions") if "positions" in spec.names else None
        self.positions = None if learned is None else nn.Embedding(learned.rows, learned.width)
        self.norm = norm(spec, "embedding_norm") if "embedding_norm" in spec.names else None

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Token ids [b, s] at `positions` [s] -> [b, s, hidden]."""
        x = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions(positions)
        return x if self.norm is None else self.norm(x)  # type: ignore[no-any-return]
