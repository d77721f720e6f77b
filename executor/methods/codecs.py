"""How a weight is stored: dense or sparse, in fp32, bf16, fp8, int8 or int4; every byte is written and counted.

| form | tensors beside each other | bytes of [outputs, inputs] |
| fp32, bf16 | the values | 4, 2 a weight |
| fp8 | e4m3 values, one fp32 scale a matrix | 1 a weight + 4 |
| int8 | codes, a fp32 scale an output | 1 a weight + 4 an output |
| int4 | codes two a byte, a fp32 scale a group of inputs | 1/2 a weight + 4 a group |
| 2:4 | half of the values in fp32, 2 bits each for their place | 2 + 1/8 a weight |
| sparse | the values that aren't zero in fp32, one bit a weight for their place | 4 a value + 1/8 a weight |

These are the bytes of `planner.compression`, weight for weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from executor.methods import quantize
from executor.methods.prune import KEPT, groups_fit
from executor.methods.targets import rows, unrows
from planner.compression.prune import GROUP
from planner.compression.quantize import GROUP as GROUP_OF_INT4
from planner.errors import Fault, InputError

FORMS = ("fp32", "bf16", "fp8", "int8", "int4", "2:4", "sparse")
Parts = dict[str, Tensor]


def encode(weight: Tensor, form: str, group: int = GROUP_OF_INT4) -> Parts:
    """The tensors that store `weight` in `form`, by what they are; InputError when 2:4 finds more than two of four."""
    if form in ("fp32", "bf16"):
        return {"values": weight.detach().to(torch.bfloat16 if form == "bf16" else torch.float32).contiguous()}
    matrix = rows(weight.detach()).float()
    if form == "fp8":
        each = matrix.unflatten(0, (len(weight) if weight.dim() == 3 else 1, -1))
        scale = each.abs().amax((1, 2)).clamp(min=quantize.TINY) / torch.finfo(torch.float8_e4m3fn).max
        return {"values": (each / scale[:, None, None]).flatten(0, 1).to(torch.float8_e4m3fn), "scale": scale}
    if form == "sparse":
        there = matrix != 0
        return {"values": matrix[there], "places": bits(there.flatten())}
    if form == "2:4":
        values, places = squeezed(matrix)
        return {"values": values, "places": bits(places.flatten())}
    found = quantize.quantize(weight, *((4, group) if form == "int4" else (8, 0)))
    return {"values": quantize.pack(found.codes) if form == "int4" else found.codes, "scale": found.scale}


def decode(parts: Mapping[str, Tensor], form: str, shape: tuple[int, ...], group: int = GROUP_OF_INT4) -> Tensor:
    """The weight of `shape` that `parts` store, fp32."""
    values = parts["values"]
    if form in ("fp32", "bf16"):
        return values.float().view(shape)
    size = torch.Size(shape)
    outputs = size[0] * size[2] if len(size) == 3 else size[0]
    inputs = size.numel() // outputs
    if form == "fp8":
        matrix = values.float() * parts["scale"].repeat_interleave(outputs // len(parts["scale"])).unsqueeze(1)
    elif form == "sparse":
        there = unbits(parts["places"], outputs * inputs).bool()
        matrix = torch.zeros(outputs * inputs).masked_scatter(there, values).view(outputs, inputs)
    elif form == "2:4":
        places = unbits(parts["places"], outputs * inputs * 2 * KEPT // GROUP)
        matrix = stretched(values, places.view(outputs, inputs // GROUP, KEPT, 2))
    else:
        codes = quantize.unpack(values, inputs) if form == "int4" else values
        matrix = quantize.scaled(codes.float(), parts["scale"], group if form == "int4" else 0)
    return unrows(matrix, size)


def stored_bytes(parts: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors."""
    return sum(each.nbytes for each in parts.values())


def fits(form: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight of this shape can be stored so: 2:4 wants inputs in fours."""
    return form != "2:4" or groups_fit(shape)


def squeezed(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Of [outputs, inputs] the two of every four that may differ from zero, and their places as bits [..., 2, 2]."""
    four = matrix.unflatten(1, (-1, GROUP))
    if bool(((four != 0).sum(-1) > KEPT).any()):
        raise InputError(Fault("2:4", "the weights are not pruned 2:4: somewhere more than two of four remain"))
    order = (four == 0).to(torch.int8).argsort(dim=-1, stable=True)[..., :KEPT].sort(-1).values
    places = torch.stack((order & 1, order >> 1), -1).bool()
    return four.gather(-1, order).flatten(1), places


def stretched(values: Tensor, places: Tensor) -> Tensor:
    """The inverse of `squeezed`: `values` [outputs, inputs / 2], `places` [outputs, inputs / 4, 2, 2] -> the matrix."""
    order = (places[..., 0] + 2 * places[..., 1]).long()
    pairs = values.unflatten(1, (-1, KEPT))
    return torch.zeros(*pairs.shape[:2], GROUP).scatter(-1, order, pairs).flatten(1)


def bits(flags: Tensor) -> Tensor:
    """Flags [n], eight a byte, the first in the lowest bit: uint8 [ceil(n / 8)]."""
    padded = torch.nn.functional.pad(flags.to(torch.uint8), (0, -len(flags) % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)


def unbits(packed: Tensor, count: int) -> Tensor:
    """The inverse of `bits`: uint8 [count]."""
    return ((packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1).flatten()[:count]
