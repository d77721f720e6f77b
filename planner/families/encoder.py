"""Transformers that see the whole input: BERT for text, ViT for images.

Facts: the configuration classes and modules of transformers 5.23.0. `architectures` says which head stands behind.
"""

from __future__ import annotations

from typing import Any

from planner.families.reader import Family, Reader, block
from planner.shape import Shape

BIASED: dict[str, Any] = {"qkv_bias": True, "out_bias": True, "ffn_bias": True}
POOLER = ("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head")  # unused
SEEING: dict[str, Any] = {"gated": False, "norm": "layer", "causal": False, "rotary": False}


def head(reader: Reader, known: tuple[str, ...]) -> str:
    """The class that the file was saved from, one of `known`; the first where it doesn't say."""
    given = reader.items("architectures", str) or [known[0]]
    if given[0] not in known:
        reader.fault("architectures", f"only {' and '.join(known)} are understood", given[0])
    return str(given[0])


def classes(reader: Reader) -> int:
    """How many classes a classifier tells apart: 2 where the file doesn't say."""
    names = reader.get("id2label")
    reader.ignore("label2id")
    if names is None:
        return reader.count("num_labels", default=2)
    if not isinstance(names, dict) or not names:
        reader.fault("id2label", "expected an object of names by number", names)
        return 1
    return len(names)


def _bert(c: Reader) -> Shape:
    """BERT: learned positions and token types, the norm behind each addition; MLM head tied to the embedding."""
    c.require(is_decoder=False)
    c.require(add_cross_attention=False)
    c.require(position_embedding_type="absolute")
    c.ignore("attention_probs_dropout_prob", *POOLER)
    masked = head(c, ("BertForMaskedLM", "BertForSequenceClassification")) == "BertForMaskedLM"
    c.require(tie_word_embeddings=True) if masked else c.ignore("tie_word_embeddings")
    count = classes(c)
    return Shape(
        family="bert",
        **block(c, kv_heads=0, head_dim=0, tied=masked),
        **BIASED,
        **SEEING,
        norm_places="add_norm",
        embedding_norm=True,
        positions=c.count("max_position_embeddings"),
        token_types=c.count("type_vocab_size"),
        predicts="masked" if masked else "classes",
        classes=0 if masked else count,
        pooled=not masked,
    )


def _vit(c: Reader) -> Shape:
    """ViT: patches and a class token; the classifier reads that token behind the final norm."""
    c.ignore("attention_probs_dropout_prob", "encoder_stride", "pooler_output_size")
    head(c, ("ViTForImageClassification",))
    bias = c.flag("qkv_bias", default=True)
    return Shape(
        family="vit",
        **block(c, vocab=0, kv_heads=0, head_dim=0, tied=False),
        **BIASED | {"qkv_bias": bias},
        **SEEING,
        predicts="classes",
        classes=classes(c),
        image=c.count("image_size", default=224),
        patch=c.count("patch_size", default=16),
        channels=c.count("num_channels", default=3),
    )


FAMILIES = (Family("bert", ("bert",), _bert), Family("vit", ("vit",), _vit))
