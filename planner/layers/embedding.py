"""What stands before the layers: token lookup, learned positions, token types, an optional norm; or image patches.

Parameters: (vocab + positions + types) · hidden; no FLOP. Traffic: read a row, write it; the backward pass reads the
gradient and adds it to the row. Patches (ViT, arXiv:2010.11929): a matrix over patch² · channels values and its bias,
the class token, one position for each patch and for that token.
"""

from __future__ import annotations

from planner.layers.base import Convolution, Cut, Parts, Pointwise, Table, Vector
from planner.layers.norm import norm


def embedding(
    hidden: int, vocab: int, *, positions: int = 0, types: int = 0, normed: bool = False, norm_kind: str = "rms"
) -> Parts:
    """Token table (rows cut by tp), tables of positions and token types (full copies), norm (BLOOM, BERT)."""
    lookup = Pointwise("lookup", hidden, forward=2, backward=3)
    after = norm("embedding_norm", hidden, norm_kind) if normed else ()
    tables = (*_added("positions", positions, hidden), *_added("types", types, hidden))
    return (Table("tokens", "embedding", vocab, hidden), lookup, *tables, *after)


def patches(hidden: int, image: int, patch: int, channels: int) -> Parts:
    """The embedding of square images of `image`² pixels: (image / patch)² patches and the class token."""
    count = (image // patch) ** 2
    cut = Convolution(
        "patches",
        "embedding",
        channels * patch**2,
        hidden,
        Cut.NONE,
        bias=True,
        rows=count,
        kernel=patch,
        stride=patch,
        side=image,
    )
    return (cut, Vector("class_token", "embedding", hidden), *_added("positions", count + 1, hidden))


def _added(name: str, rows: int, hidden: int) -> Parts:
    """A table of `rows` of which one is added to the token's vector; nothing when there is none."""
    if rows == 0:
        return ()
    return (
        Table(name, "embedding", rows, hidden, Cut.NONE),
        Pointwise(f"add_{name}", hidden, forward=3, backward=3),
    )
