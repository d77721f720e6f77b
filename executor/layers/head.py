"""Twins of planner.layers.head: outputs for tokens, masked tokens and classes; the multi-token-prediction module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from executor.layers.base import Spec, local, matrix
from executor.layers.fused import activate
from executor.layers.norm import norm


class Head(nn.Module):
    """Final norm and output matrix."""

    def __init__(self, spec: Spec) -> None:
        """The head of a model's parts."""
        super().__init__()
        self.norm = norm(spec, "final_norm")
        self.output = matrix(spec.linear("output"))

    def forward(self, x: Tensor, predictions: int = 0) -> Tensor:
        """`x` [(1 + predictions) · b, s, hidden] -> logits; the predictions' rows come normed from their modules."""
        if predictions:
            main, ahead = x.tensor_split([x.size(0) // (1 + predictions)])
            x = torch.cat((self.norm(main), ahead))
        else:
            x = self.norm(x)
        return self.output(x)  # type: ignore[no-any-return]


class MaskedHead(nn.Module):
    """norm(gelu(W x)) W_out + b: the output matrix may be the embedding's, the bias is its own (BERT)."""

    def __init__(self, spec: Spec) -> None:
        """The head of a model's parts."""
        super().__init__()
        self.transform = matrix(spec.linear("transform"))
        self.norm = norm(spec, "transform_norm")
        self.output = matrix(spec.linear("output"))
        self.bias = nn.Parameter(torch.empty(spec.vector("output_bias").size))

    def forward(self, x: Tensor, predictions: int = 0) -> Tensor:
        """`x` [b, s, hidden] -> logits."""
        return self.output(self.norm(activate(self.transform(x)))) + local(self.bias)  # type: ignore[no-any-return]


class ClassHead(nn.Module):
    """A classifier of the first token: normed first where the model does, pooled by tanh(W x) where it does.

    `first` takes that token [b, hidden] out of all of them; tensor parallelism puts its own way in.
    """

    def __init__(self, spec: Spec) -> None:
        """The head of a model's parts."""
        super().__init__()
        self.norm = norm(spec, "final_norm") if "final_norm" in spec.work else None
        self.pooler = matrix(spec.linear("pooler")) if "pooler" in spec.names else None
        self.output = matrix(spec.linear("output"))
        self.first: Callable[[Tensor], Tensor] = lambda x: x[:, 0]

    def forward(self, x: Tensor, predictions: int = 0) -> Tensor:
        """`x` [b, s, hidden] -> logits [b, classes]."""
        x = self.first(x if self.norm is None else self.norm(x))
        x = x if self.pooler is None else self.pooler(x).tanh()
        return self.output(x)  # type: ignore[no-any-return]


class Prediction(nn.Module):
    """Predicts one token further: block(W [norm(h); norm(e)]), e the embedding of the next token (arXiv:2412.19437)."""

    def __init__(self, spec: Spec, block: nn.Module) -> None:
        """The module of a model's parts around one decoder layer."""
        super().__init__()
        self.hidden_norm = norm(spec, "mtp_hidden_norm")
        self.embedding_norm = norm(spec, "mtp_embedding_norm")
        self.projection = matrix(spec.linear("mtp_projection"))
        self.block = block
        self.final_norm = norm(spec, "mtp_final_norm")

    def forward(self, x: Tensor, ahead: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states and embeddings of the next tokens [b, s, hidden] -> (hidden states, normed for the head)."""
        joined = torch.cat((self.hidden_norm(x), self.embedding_norm(ahead)), dim=-1)
        x = self.block(self.projection(joined), positions)
        return x, self.final_norm(x)
