"""The part of a model that stands on one rank of a pipeline, chunk by chunk, as the planner's layout cuts it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from executor.model import Decoder, build
from planner.layout import chain, chunks
from planner.model import Model


@dataclass(frozen=True)
class Content:
    """What one chunk holds of the chain embedding, layers, prediction modules, head.

    `rows_in`, `rows_out`: how many hidden states go in and out for each token (the prediction modules add theirs).
    `takes`, `gives`: the shape of what one sample brings in and out where that is an image, () for hidden states.
    """

    layers: range
    embedding: bool
    mtp: bool
    head: bool
    rows_in: int
    rows_out: int
    takes: tuple[int, ...] = ()
    gives: tuple[int, ...] = ()


def contents(model: Model, seq_len: int, pp: int, vpp: int) -> list[Content]:
    """The chunks in order of depth; ValueError when the layout cuts between two prediction modules."""
    ahead = model.mtp_layers if model.mtp is not None else 0
    last = len(chain(model)) - 1
    modules = range(model.layers + 1, model.layers + 1 + ahead)
    shapes = [layer.takes for layer in model.stack()] + [()] * (ahead + 1)
    found, rows = [], 1
    for held in chunks(model, seq_len, pp, vpp):
        inside = [position in held for position in modules]
        if 0 < sum(inside) < ahead:
            raise ValueError("the prediction modules would stand on two pipeline stages; take another pp or vpp")
        out = 1 + ahead if rows > 1 or any(inside) else 1
        layers = range(max(held.start - 1, 0), min(held.stop - 1, model.layers))
        ends = (shapes[held.start], shapes[held.stop])
        found.append(Content(layers, 0 in held, any(inside), last in held, rows, out, *ends))
        rows = out
    return found


class Chunk(nn.Module):
    """One chunk for the pipeline: its decoder, and the positions of the tokens that this rank sees."""

    def __init__(self, decoder: Decoder, positions: Tensor) -> None:
        """`positions` [tokens of this context rank]."""
        super().__init__()
        self.decoder = decoder
        self.register_buffer("positions", positions, persistent=False)

    def forward(
        self,
        x: Tensor,
        ahead: Tensor | None = None,
        there: Tensor | None = None,
        types: Tensor | None = None,
    ) -> Tensor:
        """Token ids [b, s], images or states in, states or logits out; `ahead`, `there`, `types` as the decoder's."""
        ahead = ahead if len(self.decoder.mtp) else None
        return self.decoder(x, self.positions, ahead, there, types)  # type: ignore[no-any-return]


def make(model: Model, content: Content, device: torch.device, seed: int) -> Decoder:
    """The decoder of a chunk, whole tensors, fp32; training needs every part in place, whatever the layout."""
    return build(
        model,
        device=device,
        layers=content.layers,
        embedding=content.embedding,
        mtp=content.mtp,
        head=content.head,
        seed=seed,
    )
