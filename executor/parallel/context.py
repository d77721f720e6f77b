"""Context parallelism: each rank has a part of every sequence, and attention sees all of it.

| kind | what moves | order of the tokens |
| ring | keys and values pass around, one neighbour at a time (Liu 2023, arXiv:2310.01889) | zigzag |
| all_gather | all keys and values at once (Llama 3, arXiv:2407.21783, section 3.3.2) | zigzag |
| ulysses | queries, keys and values change from cut by tokens to cut by heads (arXiv:2309.14509) | contiguous |

Zigzag: of 2 cp equal pieces, rank r has pieces r and 2 cp - 1 - r, so that causal work is the same on all ranks.
A core that a kind can't do (ring: windows, sinks; ulysses: sinks, heads that cp does not divide) gathers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from executor.mesh import Meshes
from executor.model import Decoder
from executor.parallel.collectives import Group, exchange, gather
from executor.parallel.ring import ring_attention

KINDS = ("ring", "all_gather", "ulysses")
Core = Callable[..., Tensor]


def order(seq_len: int, cp: int, rank: int, kind: str) -> Tensor:
    """Positions [seq_len / cp] of the tokens that a context rank has, rising."""
    pieces = torch.arange(seq_len).chunk(cp if kind == "ulysses" else 2 * cp) if cp > 1 else (torch.arange(seq_len),)
    mine = (rank,) if kind == "ulysses" or cp == 1 else (rank, 2 * cp - 1 - rank)
    return torch.cat([pieces[i] for i in mine])


def apply_context(model: Decoder, meshes: Meshes, kind: str, seq_len: int) -> None:
    """Let each attention core of a stage see the tokens of all context ranks; parameters keep their names."""
    cp, group = meshes.size("cp"), meshes.group("cp")
    if cp == 1:
        return
    everyone = torch.cat([order(seq_len, cp, rank, kind) for rank in range(cp)])
    for core in _cores(model):
        plain: Core = core.forward
        where = everyone.argsort(), everyone
        special = core.linear or core.window is not None or core.sinks is not None or not core.causal
        if kind == "ring" and not special:
            core.forward = partial(_ring, group)
        elif core.linear and core.heads // meshes.size("tp") % cp == 0:
            core.first += meshes.rank("cp") * core.heads // meshes.size("tp") // cp
            core.forward = partial(_by_heads, plain, group, where)
        elif kind == "ulysses" and core.sinks is None and not core.linear:
            core.forward = partial(_by_heads, plain, group, where)
        else:
            core.forward = partial(_gathered, plain, group, where)


def _cores(model: Decoder) -> Iterator[Any]:
    for module in model.modules():
        core = getattr(module, "core", None)
        if isinstance(core, nn.Module):
            yield core


def _ring(group: Group, q: Tensor, k: Tensor, v: Tensor, positions: Tensor) -> Tensor:
    out: Tensor = ring_attention(*(each.transpose(1, 2).contiguous() for each in (q, k, v)), group.group_name)[0]
    return out.transpose(1, 2)


def _gathered(
    plain: Core,
    group: Group,
    where: tuple[Tensor, Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    **mask: Tensor,
) -> Tensor:
    """The plain core on this rank's queries and everyone's keys and values, in the order of the sequence."""
    rank_order = where[0].to(k.device)
    both = gather(torch.cat((k, v), -1), 1, group, "context").index_select(1, rank_order)
    keys, values = both.split((k.size(-1), v.size(-1)), -1)
    return plain(q, keys, values, positions, torch.arange(keys.size(1), device=k.device), **mask)


def _by_heads(
    plain: Core,
    group: Group,
    where: tuple[Tensor, Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    **mask: Tensor,
) -> Tensor:
    """The plain core on all tokens of some heads; keys and values are repeated where cp does not divide theirs."""
    cp = group.size()
    if q.size(2) % cp:
        return _gathered(plain, group, where, q, k, v, positions, **mask)
    if k.size(2) % cp:
        k, v = (each.repeat_interleave(q.size(2) // each.size(2), 2) for each in (k, v))
    sort, unsort = (each.to(q.device) for each in where)
    q, k, v = (turn(each, 2, 1, group, "context").index_select(1, sort) for each in (q, k, v))
    out = plain(q, k, v, torch.arange(q.size(1), device=q.device), **mask)
    return turn(out.index_select(1, unsort), 1, 2, group, "context")


def turn(x: Tensor, split: int, join: int, group: Group, phase: str) -> Tensor:
    """From whole along `split` and cut along `join` to the reverse: one all-to-all."""
    ways = group.size()
    pieces = torch.cat([piece.unsqueeze(0) for piece in x.chunk(ways, split)])
    moved = exchange(pieces, [1] * ways, [1] * ways, group, phase)
    return torch.cat(moved.unbind(0), join)
