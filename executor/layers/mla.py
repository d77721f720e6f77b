"""Twin of planner.layers.mla: multi-head latent attention, keys and values multiplied out as in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from executor.layers.attention import KeysValues
from executor.layers.base import Spec, matrix
from executor.layers.core import SoftmaxCore
from executor.layers.norm import norm
from executor.layers.rebuild import rebuilt
from executor.layers.rotary import Angles, angles, rotate


class LatentAttention(nn.Module):
    """Query from its latent (or straight from x), keys and values from theirs, one rotated key for all heads."""

    def __init__(self, spec: Spec) -> None:
        """The attention of a layer's parts."""
        super().__init__()
        down, up, core = spec.linear("kv_down"), spec.linear("kv_up"), spec.core()
        self.latent, self.rope_dim = up.inputs, down.outputs - up.inputs
        self.qk_dim, self.nope_dim, self.v_dim = core.qk_dim, core.qk_dim - self.rope_dim, core.v_dim
        compressed = "q_down" in spec.names
        self.q_down = matrix(spec.linear("q_down")) if compressed else None
        self.q_norm = norm(spec, "q_norm") if compressed else None
        self.q_up = matrix(spec.linear("q_up")) if compressed else None
        self.q = None if compressed else matrix(spec.linear("q"))
        self.kv_down = matrix(down)
        self.kv_norm = norm(spec, "kv_norm")
        self.kv_up = matrix(up)
        self.core = SoftmaxCore(core)
        self.out = matrix(spec.linear("attention_out"))

    def forward(self, x: Tensor, positions: Tensor, shared: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """`x` [b, s, hidden] -> [b, s, hidden], and the keys and values."""
        turn = angles(positions, self.rope_dim, x.dtype)
        q = self._query(x, turn)
        latent, turned = self.kv_down(x).split((self.latent, self.rope_dim), dim=-1)
        up = rebuilt(self.kv_up, rebuilt(self.kv_norm, latent))
        k = rebuilt(self._key, up, rotate(turned.unsqueeze(2), turn))
        v = rebuilt(lambda up: self._heads(up)[..., self.nope_dim :].contiguous(), up)
        return self.out(self.core(q, k, v, positions).flatten(2)), (k, v)

    def _heads(self, up: Tensor) -> Tensor:
        """[b, s, heads on this rank, nope_dim + v_dim]."""
        heads: Tensor = up.unflatten(-1, (-1, self.nope_dim + self.v_dim))
        return heads

    def _key(self, up: Tensor, turned: Tensor) -> Tensor:
        """[b, s, heads on this rank, qk_dim]: a key of its own for each head, and the turned one of all."""
        own = self._heads(up)[..., : self.nope_dim]
        return torch.cat((own, turned.expand(-1, -1, own.size(2), -1)), dim=-1)

    def _query(self, x: Tensor, turn: Angles) -> Tensor:
        """[b, s, heads on this rank, qk_dim], the last rope_dim of them turned."""
        if self.q is not None:
            whole = self.q
            return rebuilt(lambda x: self._turned(whole(x), turn), x)
        normed = rebuilt(self.q_norm, self.q_down(x))  # type: ignore[arg-type, misc]
        return rebuilt(lambda latent: self._turned(self.q_up(latent), turn), normed)  # type: ignore[misc]

    def _turned(self, q: Tensor, turn: Angles) -> Tensor:
        nope, rope = q.unflatten(-1, (-1, self.qk_dim)).split((self.nope_dim, self.rope_dim), -1)
        return torch.cat((nope, rotate(rope, turn)), dim=-1)
