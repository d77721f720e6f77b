"""Tensor parallelism by torch's `parallelize_module`, with the styles of `executor.parallel.styles`.

Column-cut matrices give a slice of the output, row-cut ones a part of the sum; between layers the tokens are cut too
(sequence parallelism, Korthikanti 2022, arXiv:2205.05198): gather into the column cut, reduce-scatter out of the row
cut.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.tensor.parallel import ParallelStyle, parallelize_module

from executor.layers.attention import Attention
from executor.layers.embedding import Embedding, Patches
from executor.layers.ffn import FeedForward
from executor.layers.head import ClassHead, MaskedHead
from executor.layers.linear_attention import LinearAttention
from executor.layers.mla import LatentAttention
from executor.mesh import Meshes
from executor.model import Decoder
from executor.parallel.styles import (
    Bias,
    Column,
    Entered,
    First,
    Left,
    OneHead,
    Pictures,
    Positions,
    Region,
    Row,
    Rows,
    Sinks,
    Types,
    Whole,
)


def apply_tensor(model: Decoder, meshes: Meshes, *, sequence: bool) -> list[str]:
    """Cut a stage over tp in place; the names of parameters whose gradients must still be summed over tp."""
    if meshes.size("tp") == 1:
        return []
    mesh = meshes.data["tp"]
    region = Region(mesh, sequence=sequence)
    plan: dict[str, ParallelStyle] = {}
    for name, module in model.named_modules():
        for suffix, style in _styles(module, region).items():
            plan[f"{name}.{suffix}".strip(".")] = style
    plan |= _ends(model, region)
    known = dict(model.named_modules())
    tokens = model.embedding.tokens if isinstance(model.embedding, Embedding) else None
    tied = model.head is not None and tokens is not None and model.head.output.weight is tokens.weight
    parallelize_module(model, mesh, {name: style for name, style in plan.items() if name in known})
    if tied and model.head is not None and tokens is not None:
        model.head.output.weight = tokens.weight
    return [
        name for name, parameter in model.named_parameters() if _is_partial(name, parameter, model, sequence=sequence)
    ]


def _styles(module: nn.Module, region: Region) -> dict[str, ParallelStyle]:
    """The styles of one kind of block, by the names inside it; "" is the block itself."""
    if isinstance(module, FeedForward):
        return {"": Entered(region), "up": Column(), "gate": Column(), "down": Row(region)}
    if isinstance(module, Attention):
        return _attention(module, region)
    if isinstance(module, LatentAttention):
        up = {"q": Column(region), "q_up": Column(region), "kv_down": Left(region), "kv_up": Column()}
        return {**up, "core": Sinks(), "out": Row(region)}
    if isinstance(module, LinearAttention):
        inner = {name: Column() for name in ("q", "k", "v", "gate")}
        module.core.first = region.group.rank() * module.core.heads // region.group.size()
        return {"": Entered(region), **inner, "core_norm": Whole(region), "out": Row(region)}
    if hasattr(module, "projection") and region.sequence:
        return {"projection": Column(region, turned=True)}
    return {}


def _attention(module: Attention, region: Region) -> dict[str, ParallelStyle]:
    """The styles of grouped-query attention."""
    heads = module.k.out_features // module.head_dim if module.k is not None else 0
    keys: ParallelStyle = OneHead(heads) if heads % region.group.size() else Column()
    norms = {"q_norm": Whole(region), "k_norm": Whole(region)}
    return {"": Entered(region), "q": Column(), "k": keys, "v": keys, **norms, "core": Sinks(), "out": Row(region)}


def _ends(model: Decoder, region: Region) -> dict[str, ParallelStyle]:
    """The styles of what stands before and behind the layers."""
    before: dict[str, ParallelStyle] = {
        "embedding.tokens": Rows(region),
        "embedding.positions": Positions(region),
        "embedding.types": Types(region),
    }
    if isinstance(model.embedding, Patches):
        before = {"embedding": Pictures(region)}
    if not isinstance(model.head, ClassHead):
        bias: dict[str, ParallelStyle] = {"head": Bias()} if isinstance(model.head, MaskedHead) else {}
        return before | bias | {"head.output": Column(region)}
    pooled = {} if model.head.pooler is None else {"head.pooler": Column(), "head.output": Row(region.whole)}
    return before | pooled | {"head": First(region)}


def _is_partial(name: str, parameter: nn.Parameter, model: Decoder, *, sequence: bool) -> bool:
    """Whether tp ranks see different tokens or heads of what a whole parameter works on."""
    if hasattr(parameter, "placements") or ".experts." in name or name.startswith("head.output."):
        return False
    owner = model.get_submodule(name.rsplit(".", 2)[0])
    inside = {Attention: {"k", "v", "q_norm", "k_norm"}, LatentAttention: {"kv_norm"}}.get(type(owner), set())
    return sequence or name.split(".")[-2] in inside
