"""Twin of planner.layers.ffn: the plain and the gated feed-forward block."""

from __future__ import annotations

from torch import Tensor, nn

from executor.layers.base import Spec, matrix
from executor.layers.fused import activate
from executor.layers.rebuild import rebuilt


class FeedForward(nn.Module):
    """down(silu(gate(x)) · up(x)), or down(gelu(up(x))) without a gate."""

    def __init__(self, spec: Spec, prefix: str = "") -> None:
        """The block of a layer's parts; `prefix` "shared_" for the shared experts."""
        super().__init__()
        up, down = spec.linear(f"{prefix}up"), spec.linear(f"{prefix}down")
        self.up = matrix(up, down.inputs)
        self.gate = matrix(up, down.inputs) if up.outputs == 2 * down.inputs else None
        self.down = matrix(down)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [..., hidden] -> [..., hidden]."""
        inner = (self.up(x),) if self.gate is None else (self.up(x), self.gate(x))
        return self.down(rebuilt(activate, *inner))  # type: ignore[no-any-return]
