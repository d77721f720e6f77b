"""Dropout (Srivastava 2014) on what attention, feed-forward blocks and embedding give to the residual stream.

Of a classifier, what its last matrix reads is dropped too; of a residual network that alone.

Each rank draws from its own generator, which checkpoints keep (`seed_ranks`), so a run repeats bit for bit on the same
layout. Another layout draws other masks: it equals one process in distribution, not in value.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.layers.block import Block
from executor.layers.convolution import ImageHead
from executor.layers.embedding import Embedding, Patches
from executor.layers.head import ClassHead
from executor.mesh import Meshes
from executor.model import Decoder
from executor.parallel.blocks import blocks


def apply_dropout(model: Decoder, share: float) -> None:
    """Drop `share` of the outputs in training; in evaluation (`model.eval()`) and with 0 nothing changes."""
    if not share:
        return
    branches = [part for block in blocks(model) if isinstance(block, Block) for part in (block.attention, block.ffn)]
    if isinstance(model.embedding, Embedding | Patches):
        branches.append(model.embedding)
    for module in branches:
        module.register_forward_hook(partial(_dropped, share))
    if isinstance(model.head, ClassHead | ImageHead):
        model.head.output.register_forward_pre_hook(partial(_entering, share))


def seed_ranks(seed: int, meshes: Meshes, *, sequence_parallel: bool) -> None:
    """Seed this rank's generator: ranks of tp share one where each of them has the whole of the activations."""
    tp = meshes.rank("tp") if sequence_parallel else 0
    places = (seed, meshes.rank("pp"), meshes.rank("dp"), meshes.rank("cp"), tp)
    digest = hashlib.blake2b(repr(places).encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "big") >> 1)


def _dropped(share: float, module: nn.Module, inputs: Any, output: Any) -> Any:
    """The output, or the first of a tuple, with some values set to 0 and the others scaled."""
    if isinstance(output, Tensor):
        return functional.dropout(output, share, module.training)
    return functional.dropout(output[0], share, module.training), *output[1:]


def _entering(share: float, module: nn.Module, inputs: Any) -> Any:
    return functional.dropout(inputs[0], share, module.training), *inputs[1:]
