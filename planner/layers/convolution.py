"""Convolutions of images: stem, residual blocks and classifier of a residual network (He 2015, arXiv:1512.03385).

A convolution is a matrix of channels · kernel² inputs on each position of its output, without bias, and a batch norm:
parameters channels · kernel² · outputs + 2 · outputs, FLOP 2 · channels · kernel² · outputs a position. Kept: the input
of each convolution (an activation's output, once) and of each norm. Batch norm of a training step reads its input
twice, for the statistics and for the result. Nothing here is cut by tp.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.layers.base import Convolution, Cut, Linear, Parts, Pointwise, Vector
from planner.layers.norm import RESIDUAL

BATCH_NORM_FORWARD = 3  # reads x for the statistics, again for the result, writes that
BATCH_NORM_BACKWARD = 5  # reads x and dy for two sums, both again for dx, writes it
INDEX = 4  # the place of a maximum is an int64: four values of two bytes
POOL = 3  # window and, with 2 for the stride, that of the stem's pooling


@dataclass(frozen=True)
class Image:
    """A square tensor of `channels` · `side`² values."""

    channels: int
    side: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.channels, self.side, self.side)

    def through(self, outputs: int, kernel: int, stride: int) -> Image:
        """What a padded convolution makes of it."""
        return Image(outputs, (self.side + 2 * (kernel // 2) - kernel) // stride + 1)


def convolution(name: str, image: Image, outputs: int, kernel: int, stride: int, *, saves: bool = True) -> Parts:
    """A convolution padded by half its kernel and its batch norm."""
    after = image.through(outputs, kernel, stride)
    rows = after.side**2
    matrix = Convolution(
        name,
        "convolutions",
        image.channels * kernel**2,
        outputs,
        Cut.NONE,
        saves=saves,
        rows=rows,
        kernel=kernel,
        stride=stride,
        side=image.side,
    )
    work = Pointwise(f"{name}_norm", outputs, BATCH_NORM_FORWARD, BATCH_NORM_BACKWARD, saved=1, rows=rows)
    return (matrix, Vector(f"{name}_norm_gain", "norms", 2 * outputs), work)


def rectifier(name: str, image: Image) -> Parts:
    """max(x, 0): keeps its output, which the next convolution keeps already."""
    return (Pointwise(name, image.channels, 2, 3, rows=image.side**2),)


def stem(image: Image, outputs: int, kernel: int, stride: int, *, pooled: bool) -> tuple[Parts, Image]:
    """The first convolution and, when `pooled`, the maximum over 3² positions, 2 apart."""
    wide = image.through(outputs, kernel, stride)
    parts = (*convolution("stem", image, outputs, kernel, stride), *rectifier("stem_activation", wide))
    if not pooled:
        return parts, wide
    narrow = wide.through(outputs, POOL, 2)
    read = wide.side**2 // narrow.side**2
    moved = read + 1 + INDEX
    return (*parts, Pointwise("pool", outputs, moved, moved, saved=read + INDEX, rows=narrow.side**2)), narrow


def residual_block(image: Image, outputs: int, stride: int, inner: int) -> tuple[Parts, Image]:
    """relu(f(x) + x): two convolutions of 3², or with `inner` channels 1², 3² and 1² again (a bottleneck).

    Where the shape changes x passes a convolution of 1² on its way. The 3² convolution of a bottleneck has the stride.
    """
    after = image.through(outputs, 3, stride)
    if inner:
        narrow, less = image.through(inner, 1, 1), image.through(inner, 3, stride)
        branch = (
            *convolution("first", image, inner, 1, 1),
            *rectifier("first_activation", narrow),
            *convolution("second", narrow, inner, 3, stride),
            *rectifier("second_activation", less),
            *convolution("third", less, outputs, 1, 1),
        )
    else:
        branch = (
            *convolution("first", image, outputs, 3, stride),
            *rectifier("first_activation", after),
            *convolution("second", after, outputs, 3, 1),
        )
    changed = image != after
    way = convolution("shortcut", image, outputs, 1, stride, saves=False) if changed else ()
    added = Pointwise("residual", outputs, RESIDUAL, RESIDUAL, rows=after.side**2)
    return (*branch, *way, added, *rectifier("activation", after)), after


def image_head(image: Image, classes: int) -> Parts:
    """The mean over all positions and a classifier; the last block's output is kept here."""
    return (
        Pointwise("mean", image.channels, 1, 1, saved=1, rows=image.side**2),
        Linear("output", "head", image.channels, classes, Cut.NONE, bias=True, rows=1),
        Pointwise("loss", classes, forward=4, backward=4, saved=3, rows=1),
    )
