"""The feed-forward block: plain y = W₂ act(W₁ x), or gated y = W₂ (act(W_g x) · W_u x) (arXiv:2002.05202).

Parameters: (2 + g) · hidden · ffn, g = 1 when gated, and (1 + g) · ffn + hidden biases. Gate and up are one matrix
multiply. Kept: the norm output (once), the 1 + g inputs of the activation, its output (input of the down matrix).
"""

from __future__ import annotations

from planner.layers.base import Cut, Linear, Parts, Pointwise


def ffn(
    hidden: int,
    width: int,
    *,
    gated: bool,
    bias: bool = False,
    label: str = "dense_ffn",
    saves_input: bool = True,
    normed: bool = True,
) -> Parts:
    """The block between its norm and its residual addition.

    `saves_input` False when another part keeps x; `normed`: x comes from a norm, which selective recompute runs again.
    """
    shared = label == "shared_experts"
    prefix = "shared_" if shared else ""
    inner = (1 + gated) * width
    enters = hidden if shared else None  # the router before it reads this rank's tokens alone
    return (
        Linear(
            f"{prefix}up",
            label,
            hidden,
            inner,
            Cut.COLUMN,
            bias=bias,
            saves=saves_input,
            cheap_input=saves_input and normed,
            enters=enters,
        ),
        activation(f"{prefix}activation", width, gated=gated),
        Linear(f"{prefix}down", label, width, hidden, Cut.ROW, bias=bias, cheap_input=True),
    )


def activation(name: str, width: int, *, gated: bool, active: int = 1, expert: bool = False) -> Pointwise:
    """Forward reads 1 + g and writes 1 tensor of `width`; backward reads dy and the inputs, writes their gradients."""
    inputs = 1 + gated
    return Pointwise(name, width, inputs + 1, 2 * inputs + 1, inputs, Cut.COLUMN, active, expert)
