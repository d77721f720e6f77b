"""What stands before the layers: token lookup, learned positions, an optional norm.

Parameters: vocab · hidden + positions · hidden; no FLOP. Traffic: read a row, write it; the backward pass reads the
gradient and adds it to the row.
"""

from __future__ import annotations

from planner.layers.base import Cut, Parts, Pointwise, Table
from planner.layers.norm import norm


def embedding(hidden: int, vocab: int, *, positions: int = 0, normed: bool = False, norm_kind: str = "rms") -> Parts:
    """Token table (rows cut by tp), position table (full copies), norm (BLOOM)."""
    lookup = Pointwise("lookup", hidden, forward=2, backward=3)
    after = norm("embedding_norm", hidden, norm_kind) if normed else ()
    return (Table("tokens", "embedding", vocab, hidden), lookup, *learned_positions(positions, hidden), *after)


def learned_positions(positions: int, hidden: int) -> Parts:
    """A table of `positions` rows added to the token's vector; nothing when there is none."""
    if positions == 0:
        return ()
    return (
        Table("positions", "embedding", positions, hidden, Cut.NONE),
        Pointwise("add_positions", hidden, forward=3, backward=3),
    )
