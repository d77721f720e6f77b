"""One transformer layer: norms where its parts have them, attention, feed-forward block or mixture."""

from __future__ import annotations

from torch import Tensor, nn

from executor.layers.attention import Attention, KeysValues
from executor.layers.base import Spec
from executor.layers.ffn import FeedForward
from executor.layers.linear_attention import LinearAttention
from executor.layers.mla import LatentAttention
from executor.layers.moe import Mixture
from executor.layers.norm import norm
from executor.layers.rebuild import rebuilt
from executor.layers.router import Routing

NORMS = (
    "attention_norm", "post_attention_norm", "attention_sum_norm", "ffn_norm", "beside_norm", "post_ffn_norm",
    "ffn_sum_norm",
)  # fmt: skip


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), with the norms that the parts name.

    A layer with a norm before the attention alone runs the feed-forward block beside it, on the same input (PaLM).
    With `gives` set it returns its keys and values too, for a next layer that has none of its own.
    """

    def __init__(self, spec: Spec, routing: Routing) -> None:
        """The layer of its parts."""
        super().__init__()
        self.norms = nn.ModuleDict({name: norm(spec, name) for name in NORMS if name in spec.work})
        self.attention = _attention(spec)
        self.ffn = Mixture(spec, routing) if "router" in spec.names else FeedForward(spec)
        self.parallel = list(self.norms) == ["attention_norm"]
        self.gives = False

    def forward(
        self, x: Tensor, positions: Tensor, shared: KeysValues | None = None, there: Tensor | None = None
    ) -> Tensor | tuple[Tensor, KeysValues]:
        """`x` [b, s, hidden] at `positions` [s] -> the same shape; `shared`: keys and values of the layer before.

        `there` [b, whole s]: which tokens are no padding.
        """
        normed = self._norm("attention_norm", x)
        mask = () if there is None else (there,)
        attended, given = self.attention(normed, positions, shared, *mask)
        if self.parallel:
            x = x + attended + self.ffn(normed)
        else:
            x = self._norm("attention_sum_norm", x + self._norm("post_attention_norm", attended))
            x = self._norm("ffn_sum_norm", x + self._norm("post_ffn_norm", self._feed(x)))
        return (x, given) if self.gives else x

    def _feed(self, x: Tensor) -> Tensor:
        normed = self._norm("ffn_norm", x)
        if "beside_norm" in self.norms:
            return self.ffn(normed, self._norm("beside_norm", x))  # type: ignore[no-any-return]
        return self.ffn(normed)  # type: ignore[no-any-return]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return rebuilt(self.norms[name], x) if name in self.norms else x


def _attention(spec: Spec) -> nn.Module:
    if spec.core().linear:
        return LinearAttention(spec)
    return LatentAttention(spec) if "kv_down" in spec.names else Attention(spec)
