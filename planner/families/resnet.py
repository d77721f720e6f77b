"""Residual networks. Facts: the configuration class and modules of transformers 5.23.0 (stride in the 3² convolution).

A configuration has no resolution; 224 pixels is that of the published checkpoints.
"""

from __future__ import annotations

from planner.families.encoder import classes, head
from planner.families.reader import Family, Reader
from planner.residual_network import ResidualNetwork


def _resnet(c: Reader) -> ResidualNetwork:
    c.require(downsample_in_bottleneck=False)
    c.ignore("out_features", "out_indices", "stage_names")
    head(c, ("ResNetForImageClassification",))
    kind = c.get("layer_type") or "bottleneck"
    if kind not in ("basic", "bottleneck"):
        c.fault("layer_type", "only basic and bottleneck are understood", kind)
    widths, depths = (c.items(key, int) for key in ("hidden_sizes", "depths"))
    return ResidualNetwork(
        name=c.name,
        image=c.count("image_size", default=224),
        widths=tuple(widths or (256, 512, 1024, 2048)),
        depths=tuple(depths or (3, 4, 6, 3)),
        classes=classes(c),
        bottleneck=kind == "bottleneck",
        channels=c.count("num_channels", default=3),
        stem=c.count("embedding_size", default=64),
        first_stride=2 if c.flag("downsample_in_first_stage") else 1,
    )


FAMILIES = (Family("resnet", ("resnet",), _resnet),)
