"""Layers whose weights stay int8 or int4, to predict with: weight-only, and with inputs in int8 too.

| form | a product | what it saves |
| int8, int4 | weights widened when they are used | memory: a quarter, an eighth of fp32 |
| int8-dynamic | inputs int8, a scale a token or image, one integer product (`torch._int_mm`), scaled | time too |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from executor.methods import quantize
from executor.methods.targets import SPARED, compressible, unrows
from planner.compression.quantize import GROUP

FORMS = {"int8": (8, False), "int4": (4, False), "int8-dynamic": (8, True)}
"""Bits of the weights, and whether the inputs are rounded too."""


class Product(nn.Module):
    """A matrix or kernel in codes: `codes` int8 [outputs, inputs] or packed int4, `scale` [outputs, groups], `bias`."""

    codes: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, found: quantize.Codes, bias: Tensor | None, *, dynamic: bool) -> None:
        """Of a quantized weight."""
        super().__init__()
        self.bits, self.group, self.shape, self.dynamic = found.bits, found.group, found.shape, dynamic
        self.register_buffer("codes", quantize.pack(found.codes) if found.bits == 4 else found.codes)
        self.register_buffer("scale", found.scale)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def inputs(self) -> int:
        """Inputs of one output."""
        return self.shape[1:].numel()

    def weight(self) -> Tensor:
        """The weight that the codes stand for, fp32."""
        codes = quantize.unpack(self.codes, self.inputs) if self.bits == 4 else self.codes
        return unrows(quantize.scaled(codes.float(), self.scale, self.group), self.shape)

    def multiply(self, codes: Tensor, scale: Tensor) -> Tensor:
        """Inputs in `codes` int8 [n, inputs] with their `scale` [n, 1] -> [n, outputs] fp32, without the bias."""
        product: Tensor = torch._int_mm(codes, self.codes.t()).float()  # noqa: SLF001 (no public name)
        return product.mul_(scale).mul_(self.scale.t())


def _coded(x: Tensor, dims: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """int8 codes of inputs and the scale of each token or image."""
    scale = x.abs().amax(dims, keepdim=True).clamp(min=quantize.TINY) / quantize.MOST[8]
    return (x * scale.reciprocal()).round_().to(torch.int8), scale


class Linear(Product):
    """A matrix."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` [..., inputs] -> [..., outputs]."""
        if not self.dynamic:
            return functional.linear(x, self.weight().to(x.dtype), self.bias)
        y = self.multiply(*_coded(x.reshape(-1, x.size(-1)).float(), -1)).view(*x.shape[:-1], -1)
        return (y if self.bias is None else y.add_(self.bias)).to(x.dtype)


class Conv2d(Product):
    """A kernel; with inputs in int8 every patch is a row, every image has a scale."""

    def __init__(self, found: quantize.Codes, like: nn.Conv2d, *, dynamic: bool) -> None:
        """With the stride, padding and dilation of `like`."""
        super().__init__(found, like.bias, dynamic=dynamic)
        self.kernel, self.stride, self.dilation = like.kernel_size, like.stride, like.dilation
        self.padding: tuple[int, ...] = tuple(int(each) for each in like.padding)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [n, in, height, width] -> [n, out, height, width]."""
        if not self.dynamic:
            return functional.conv2d(x, self.weight(), self.bias, self.stride, self.padding, self.dilation)
        codes, scale = _coded(x.float(), (1, 2, 3))
        patches = self._patches(codes)
        size = patches.shape[:3]
        each = scale.view(-1, 1).repeat_interleave(size[1] * size[2], 0)
        y = self.multiply(patches.flatten(0, 2), each).view(*size, -1).movedim(-1, 1)
        return (y if self.bias is None else y + self.bias[:, None, None]).to(x.dtype)

    def _patches(self, codes: Tensor) -> Tensor:
        """What each output sees, channels innermost as in the codes: [n, height, width, kernel² · channels]."""
        found = functional.pad(
            codes.movedim(1, -1), (0, 0, self.padding[1], self.padding[1], self.padding[0], self.padding[0])
        )
        for dim in (0, 1):
            reach = (self.kernel[dim] - 1) * self.dilation[dim] + 1
            found = found.unfold(1 + dim, reach, self.stride[dim])[..., :: self.dilation[dim]]
        return found.movedim(3, -1).flatten(3)


def deploy(module: nn.Module, form: str, group: int = GROUP, spared: frozenset[str] = SPARED) -> list[str]:
    """Replace the compressible matrices and kernels inside `module` by those of `form`; names of their weights.

    Stacks of experts stay in floating point here (`codecs` stores them in codes). A kernel with groups or with another
    padding than zeros stays too.
    """
    bits, dynamic = FORMS[form]
    replaced = []
    for name, parameter in list(module.named_parameters()):
        if compressible(name, parameter.shape, spared):
            found = quantize.quantize(parameter, bits, group if bits == 4 else 0)
            if place(module, name, found, dynamic=dynamic):
                replaced.append(name)
    return replaced


def place(module: nn.Module, name: str, found: quantize.Codes, *, dynamic: bool) -> bool:
    """Put the codes of the weight `name` in the place of its layer; False when that is no matrix or plain kernel."""
    path, _, last = name.rpartition(".")
    parent, _, own = path.rpartition(".")
    if last != "weight":
        return False
    part, owner = module.get_submodule(path), module.get_submodule(parent)
    if isinstance(part, nn.Linear):
        setattr(owner, own, Linear(found, part.bias, dynamic=dynamic))
    elif isinstance(part, nn.Conv2d) and _plain(part):
        setattr(owner, own, Conv2d(found, part, dynamic=dynamic))
    else:
        return False
    return True


def _plain(part: nn.Conv2d) -> bool:
    return part.groups == 1 and part.padding_mode == "zeros" and not isinstance(part.padding, str)
