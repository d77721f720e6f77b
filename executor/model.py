"""The twin of a planner's model, or of any contiguous part of it: embedding, layers, prediction modules, head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from executor.initial import fill
from executor.layers.attention import Attention, KeysValues
from executor.layers.base import Spec
from executor.layers.block import Block
from executor.layers.convolution import ImageHead, ResidualBlock, Stem
from executor.layers.embedding import Embedding, Patches
from executor.layers.head import ClassHead, Head, MaskedHead, Prediction
from executor.layers.router import Routing, routing_of
from hwprofiles.faults import Fault, InputError
from planner.model import Layer, Model

Before = Embedding | Patches | Stem
Behind = Head | MaskedHead | ClassHead | ImageHead
LABELS = {
    ".norms.": "norms",
    ".convolutions.": "convolutions",
    "embedding.norm.": "norms",
    "head.norm.": "norms",
    ".attention.": "attention",
    ".ffn.router.": "router",
    ".ffn.experts.": "experts",
    ".ffn.shared": "shared_experts",
    ".ffn.": "dense_ffn",
    "embedding.": "embedding",
    "head.": "head",
}
"""The planner's label of a parameter by what its name contains, the first that fits."""


class Decoder(nn.Module):
    """A contiguous part of the chain embedding, layers, prediction modules, head; absent pieces are None or empty.

    `starts`: the input is token ids; without it an embedding is here for the prediction modules alone. `predictions`:
    how many prediction modules the whole model has.
    """

    def __init__(
        self,
        embedding: Before | None,
        layers: dict[int, Block | ResidualBlock],
        mtp: Sequence[Prediction],
        head: Behind | None,
        *,
        starts: bool,
        predictions: int,
    ) -> None:
        """The pieces; `layers` by their number in the whole model."""
        super().__init__()
        self.embedding = embedding
        self.layers = nn.ModuleDict({str(index): block for index, block in layers.items()})
        self.mtp = nn.ModuleList(mtp)
        self.head = head
        self.starts, self.predictions = starts, predictions

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        ahead: Tensor | None = None,
        there: Tensor | None = None,
        types: Tensor | None = None,
    ) -> Tensor:
        """Token ids [b, s] or images (where the chain starts here) or hidden states -> logits (with a head) or states.

        `positions` [s], by default 0, 1, … `ahead` [b, s, d]: the next d token ids after each token, for d prediction
        modules, whose rows follow the main ones along the batch: [(1 + d) · b, s, …]. `there` [b, whole s]: which
        tokens are no padding; `types` [b, s] of the tokens.
        """
        positions = torch.arange(x.size(1), device=x.device) if positions is None else positions
        if self.starts and self.embedding is not None:
            x = self.embedding(x, positions, types)
        shared: KeysValues | None = None
        for block in self.layers.values():
            out = block(x, positions, shared, there)
            x, shared = out if isinstance(out, tuple) else (out, None)
        if len(self.mtp):
            x = self._predict(x, positions, ahead)
        return x if self.head is None else self.head(x, self.predictions)

    def _predict(self, x: Tensor, positions: Tensor, ahead: Tensor | None) -> Tensor:
        if ahead is None or not isinstance(self.embedding, Embedding):
            raise ValueError("prediction modules need the next tokens and the embedding")
        rows, state = [x], x
        for depth, module in enumerate(self.mtp):
            state, normed = module(state, self.embedding(ahead[..., depth], positions), positions)
            rows.append(normed)
        return torch.cat(rows)

    def parameter_counts(self) -> Counter[str]:
        """Parameters by the planner's labels; a tied matrix once."""
        counts: Counter[str] = Counter()
        for name, parameter in self.named_parameters():
            counts[label(name)] += parameter.numel()
        return counts


def label(name: str) -> str:
    """The line of the planner's parameter table under which a parameter of a `Decoder` counts."""
    if name.startswith("mtp."):
        return "mtp"
    return next(found for piece, found in LABELS.items() if piece in name)


def build(
    model: Model,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    layers: range | None = None,
    embedding: bool = True,
    mtp: bool = True,
    head: bool = True,
    seed: int = 0,
    routing: Routing | None = None,
) -> Decoder:
    """The twin of `model`, or of the `layers` of it with or without what stands around them.

    Every parameter starts from `seed` and its name, whatever slice it is built in; a tied head without its embedding,
    and prediction modules without theirs, get a copy. `routing` None: as the model is published. Raises InputError
    for a slice that can't run.
    """
    chosen = range(model.layers) if layers is None else layers
    routing = routing_of(model) if routing is None else routing
    ahead = model.mtp_layers if model.mtp is not None else 0
    with torch.device("meta"):
        blocks = {index: layer_twin(model.kinds[model.order[index]], routing) for index in chosen}
        _share(blocks)
        modules = [_prediction(model, routing) for _ in range(ahead * mtp)]
        decoder = Decoder(
            embedding_twin(model.embedding) if embedding or modules else None,
            blocks,
            modules,
            head_twin(model.head) if head else None,
            starts=embedding,
            predictions=ahead,
        )
    decoder.to_empty(device=device)
    aliases = {"head.output.weight": "embedding.tokens.weight"} if model.tied else {}
    fill(decoder, seed=seed, depth=model.layers, dtype=dtype, aliases=aliases)
    if model.tied and decoder.head is not None and isinstance(decoder.embedding, Embedding):
        decoder.head.output.weight = decoder.embedding.tokens.weight
    return decoder


def layer_twin(layer: Layer, routing: Routing) -> Block | ResidualBlock:
    """The twin of one kind of layer."""
    return ResidualBlock(Spec(layer.parts)) if layer.takes else Block(Spec(layer.parts), routing)


def embedding_twin(layer: Layer) -> Before:
    """The twin of what stands before the layers."""
    spec = Spec(layer.parts)
    if "patches" in spec.names:
        return Patches(spec)
    return Stem(spec) if layer.takes else Embedding(spec)


def head_twin(layer: Layer) -> Behind:
    """The twin of what stands behind the layers."""
    spec = Spec(layer.parts)
    if layer.takes:
        return ImageHead(spec)
    if "transform" in spec.names:
        return MaskedHead(spec)
    return ClassHead(spec) if spec.linear("output").rows else Head(spec)


def _prediction(model: Model, routing: Routing) -> Prediction:
    """One prediction module; the layer inside it is read off the same parts."""
    if model.mtp is None:
        raise ValueError("the model predicts one token")
    spec = Spec(model.mtp.parts)
    return Prediction(spec, Block(spec, routing))


def _share(blocks: dict[int, Block | ResidualBlock]) -> None:
    """Tell each layer whose next one takes its keys and values."""
    for index, block in blocks.items():
        if isinstance(block, Block) and isinstance(block.attention, Attention) and block.attention.k is None:
            before = blocks.get(index - 1)
            if not isinstance(before, Block):
                expected = f"no cut before layer {index}, which takes the keys and values of the layer before it"
                raise InputError(Fault("pipeline stages", expected))
            before.gives = True
