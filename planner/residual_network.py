"""A residual network (He 2015, arXiv:1512.03385): its hyper-parameters and the model that they build.

An image is a sequence of one token: the work of a convolution is stated by image, that of the loss too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from hwprofiles.faults import Fault, InputError
from planner.hyperparameters import LARGEST, MOST_LAYERS
from planner.layers.base import Parts
from planner.layers.convolution import Image, image_head, residual_block, stem
from planner.model import Layer, Model


@dataclass(frozen=True)
class ResidualNetwork:
    """Hyper-parameters; widths in channels.

    `widths` and `depths`: the output of each stage and its blocks; every stage but the first halves the resolution.
    `bottleneck`: blocks of three convolutions, the inner ones a quarter as wide. `image`: side in pixels. The stem is
    a convolution of `stem_kernel`², `stem_stride` apart, and a maximum over 3² (`stem_pool`); small images take
    3, 1 and false.
    """

    name: str
    image: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    classes: int
    bottleneck: bool = False
    channels: int = 3
    stem: int = 64
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    first_stride: int = 1
    provenance: str = ""


REDUCTION = 4  # of a bottleneck
NUMBERS = ("image", "classes", "channels", "stem", "stem_kernel", "stem_stride", "first_stride")
RULES: tuple[tuple[str, str, Callable[[ResidualNetwork], bool]], ...] = (
    ("depths", "expected as many as widths", lambda n: len(n.depths) != len(n.widths)),
    ("widths", "bottlenecks need multiples of 4", lambda n: n.bottleneck and any(w % REDUCTION for w in n.widths)),
    ("stem_kernel", "expected an odd number", lambda n: n.stem_kernel % 2 == 0),
    ("depths", f"expected at most {MOST_LAYERS} blocks", lambda n: sum(n.depths) > MOST_LAYERS),
)
"""Key, what is expected of it, and when that is broken."""


def build(network: ResidualNetwork, where: str = "") -> Model:
    """The model; raises InputError with every fault, each place prefixed by `where`."""
    found = faults(network, where or network.name)
    if found:
        raise InputError(*found)
    given = Image(network.channels, network.image)
    first, image = stem(given, network.stem, network.stem_kernel, network.stem_stride, pooled=network.stem_pool)
    kinds: list[Layer] = []
    order: list[int] = []
    for stage, (width, depth) in enumerate(zip(network.widths, network.depths, strict=True)):
        inner = width // REDUCTION if network.bottleneck else 0
        for block in range(depth):
            stride = (2 if stage else network.first_stride) if block == 0 else 1
            parts, after = residual_block(image, width, stride, inner)
            order.append(_kind(kinds, f"stage{stage + 1}", parts, image))
            image = after
    return Model(
        name=network.name,
        family="resnet",
        hidden=image.channels,
        vocab=0,
        heads=0,
        kv_heads=0,
        experts=0,
        topk=0,
        kinds=tuple(kinds),
        order=tuple(order),
        embedding=Layer("embedding", first, takes=given.shape),
        head=Layer("head", image_head(image, network.classes), takes=image.shape),
        predicts="classes",
        sequence=1,
        provenance=network.provenance,
    )


def _kind(kinds: list[Layer], stage: str, parts: Parts, image: Image) -> int:
    """The number of the kind of these parts; the first of its stage has a name of its own."""
    for number, kind in enumerate(kinds):
        if (kind.parts, kind.takes) == (parts, image.shape):
            return number
    taken = any(kind.name.startswith(stage) for kind in kinds)
    kinds.append(Layer(stage if taken else f"{stage}_first", parts, takes=image.shape))
    return len(kinds) - 1


def faults(network: ResidualNetwork, where: str) -> list[Fault]:
    """Everything wrong with the hyper-parameters; types and ranges first, relations only between sound values."""
    found = [
        Fault(f"{where}: {key}", f"expected a whole number from 1 to {LARGEST}", getattr(network, key))
        for key in NUMBERS
        if type(getattr(network, key)) is not int or not 1 <= getattr(network, key) <= LARGEST
    ]
    found += [
        Fault(f"{where}: {field.name}", "expected true or false", getattr(network, field.name))
        for field in fields(network)
        if field.type == "bool" and type(getattr(network, field.name)) is not bool
    ]
    for key in ("widths", "depths"):
        value = getattr(network, key)
        if not isinstance(value, tuple) or not value or any(type(n) is not int or not 1 <= n <= LARGEST for n in value):
            found.append(Fault(f"{where}: {key}", "expected a list of whole numbers from 1", value))
    return found or [
        Fault(f"{where}: {key}", expected, getattr(network, key)) for key, expected, broken in RULES if broken(network)
    ]
