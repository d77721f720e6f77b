"""What stands behind the layers: final norm, output matrix, cross-entropy; and the multi-token-prediction module.

Parameters: norm + hidden · vocab (once with the embedding when tied). Loss: logits in two bytes and their softmax in
fp32 are kept, 6 bytes a logit; 16 bytes a logit move in all.
Masked tokens (BERT, arXiv:1810.04805): norm(gelu(W x)) before the output matrix, which has a bias. Classes: one row of
each sequence, pooled as tanh(W x) first where the model does (BERT).
MTP (DeepSeek-V3, arXiv:2412.19437, section 2.2): h' = W [norm(h); norm(embedding)], one layer, norm, shared output.
"""

from __future__ import annotations

from planner.layers.base import Cut, Linear, Parts, Pointwise, Vector
from planner.layers.norm import norm


def head(hidden: int, vocab: int, norm_kind: str, *, bias: bool = False) -> Parts:
    """Final norm, output matrix, loss."""
    return (
        *norm("final_norm", hidden, norm_kind),
        Linear("output", "head", hidden, vocab, Cut.COLUMN, bias=bias, cheap_input=True),
        Pointwise("loss", vocab, forward=4, backward=4, cut=Cut.COLUMN),
    )


def masked_head(hidden: int, vocab: int, norm_kind: str) -> Parts:
    """Transformation, output matrix and its bias (a vector, which stays when the matrix is the embedding's), loss."""
    return (
        Linear("transform", "head", hidden, hidden, Cut.NONE, bias=True),
        Pointwise("transform_activation", hidden, forward=2, backward=3, saved=1),
        *norm("transform_norm", hidden, norm_kind),
        Linear("output", "head", hidden, vocab, Cut.COLUMN, cheap_input=True),
        Vector("output_bias", "head", vocab, Cut.COLUMN),
        Pointwise("loss", vocab, forward=4, backward=4, cut=Cut.COLUMN),
    )


def class_head(hidden: int, classes: int, norm_kind: str, *, normed: bool, pooled: bool) -> Parts:
    """Final norm of all tokens (`normed`), pooling of the first one (`pooled`), classifier, loss."""
    pooler = Linear("pooler", "head", hidden, hidden, Cut.COLUMN, bias=True, rows=1)
    work = Pointwise("pooler_activation", hidden, forward=2, backward=3, cut=Cut.COLUMN, rows=1)
    cut = Cut.ROW if pooled else Cut.NONE
    return (
        *(norm("final_norm", hidden, norm_kind) if normed else ()),
        *((pooler, work) if pooled else ()),
        Linear("output", "head", hidden, classes, cut, bias=True, rows=1),
        Pointwise("loss", classes, forward=4, backward=4, rows=1),
    )


def mtp(hidden: int, norm_kind: str, layer: Parts) -> Parts:
    """One prediction module around the parts of one `layer`: 2·h² + 3 norms more than the layer itself.

    The output matrix and its loss are the head's, repeated by `Model.flops_per_token`.
    """
    return (
        *norm("mtp_hidden_norm", hidden, norm_kind),
        *norm("mtp_embedding_norm", hidden, norm_kind),
        Linear("mtp_projection", "mtp", 2 * hidden, hidden, Cut.COLUMN, cheap_input=True),
        *layer,
        *norm("mtp_final_norm", hidden, norm_kind),
    )
