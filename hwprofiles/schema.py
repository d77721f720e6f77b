"""What a profile file may contain: one table per kind of file, each key with its dimension and its bounds.

Loader, error messages and `plan hardware NAME` all read these tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

UNITS = {
    "bytes": "B",
    "bytes/s": "B/s",
    "flop/s": "FLOP/s",
    "seconds": "s",
    "watts": "W",
    "usd": "USD",
    "usd/s": "USD/s",
}
SOURCE_KINDS = ("fitted", "inherited", "derived", "measured", "stated")


@dataclass(frozen=True)
class Number:
    """A number of a file: `dimension` is a key of UNITS (text with a unit), "count" (whole) or "plain".

    `unit` names what a count or a plain number counts. `zero` allows 0; `maximum` bounds it (1 for a share of a peak).
    """

    dimension: str
    unit: str = ""
    zero: bool = False
    maximum: float = math.inf
    required: bool = True

    @property
    def si_unit(self) -> str:
        """The unit of the loaded value."""
        return UNITS.get(self.dimension, self.unit)


@dataclass(frozen=True)
class Text:
    """A word of a file (a name, a vendor); `choices` limits it when not empty."""

    required: bool = True
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table inside a file: `fields` by key; `some` of them must be there."""

    fields: Mapping[str, Field]
    required: bool = True
    some: tuple[str, ...] = ()


Field = Number | Text | Table

SHARE = Number("plain", "share", maximum=1.0)
WHOLE = Number("count", "count")

MATMUL = Table(
    {
        "efficiency": SHARE,
        "k_half": Number("plain", "elements", zero=True),
        "mn_half": Number("plain", "elements", zero=True),
        "launch": Number("seconds", zero=True),
    },
    required=False,
)
GROUPED = Table(
    {"efficiency": SHARE, "wave_half": Number("plain", "waves", zero=True), "launch": Number("seconds", zero=True)}
)
ATTENTION = Table(
    {
        "efficiency": SHARE,
        "seq_half": Number("plain", "tokens", zero=True),
        "flop_per_exp": Number("plain", "FLOP", zero=True),
        "backward_rate": Number("plain", "share", maximum=2.0),
    }
)
PEAK = Number("flop/s", required=False)

GPU: dict[str, Field] = {
    "name": Text(),
    "vendor": Text(),
    "generation": Text(),
    "peak": Table(dict.fromkeys(("fp32", "tf32", "bf16", "fp8", "fp4"), PEAK), some=("bf16",)),
    "sparse": Table(dict.fromkeys(("bf16", "fp8"), PEAK), required=False),
    "hbm_capacity": Number("bytes"),
    "hbm_bandwidth": Number("bytes/s"),
    "hbm_efficiency": SHARE,
    "link_bandwidth": Number("bytes/s"),
    "pcie_bandwidth": Number("bytes/s"),
    "sm_count": WHOLE,
    "tdp": Number("watts"),
    "price": Number("usd/s", zero=True),
    "reserve": Number("bytes", zero=True),
    "matmul": Table(dict.fromkeys(("fp32", "bf16", "fp8", "mxfp8", "nvfp4"), MATMUL), some=("bf16",)),
    "grouped": GROUPED,
    "attention": ATTENTION,
}

HOSTS = ("x86", "grace")
NODE: dict[str, Field] = {
    "name": Text(),
    "gpu": Text(),
    "host": Text(required=False, choices=HOSTS),
    "gpus": WHOLE,
    "scale_up_domain": WHOLE,
    "scale_up_bandwidth": Number("bytes/s"),
    "scale_up_latency": Number("seconds", zero=True),
    "scale_up_launch": Number("seconds", zero=True),
    "scale_up_efficiency": SHARE,
    "scale_up_fill": Number("bytes", zero=True),
    "nics": WHOLE,
    "nic_bandwidth": Number("bytes/s"),
    "power": Number("watts", zero=True),
}

GROUP = Number("count", "GPUs")
OVERSUBSCRIPTION = Number("plain", "ratio")
HOP = Number("seconds", zero=True)
PARAMETERS: dict[str, dict[str, Field]] = {
    "rail": {
        "group_gpus": GROUP, "pod_gpus": GROUP, "leaf_oversubscription": OVERSUBSCRIPTION,
        "spine_oversubscription": OVERSUBSCRIPTION, "hop_latency": HOP,
    },
    "clos": {
        "rack_gpus": GROUP, "pod_gpus": GROUP, "rack_oversubscription": OVERSUBSCRIPTION,
        "pod_oversubscription": OVERSUBSCRIPTION, "hop_latency": HOP,
    },
    "planes": {"group_gpus": GROUP, "planes": Number("count", "planes"), "hop_latency": HOP},
    "leaf-spine": {"leaf_gpus": GROUP, "oversubscription": OVERSUBSCRIPTION, "hop_latency": HOP},
    "torus": {"cube_side": Number("count", "GPUs"), "hop_latency": HOP},
    "time-slices": {},
    "single": {},
}  # fmt: skip

FABRIC: dict[str, Field] = {
    "name": Text(),
    "kind": Text(choices=tuple(PARAMETERS)),
    "latency": Number("seconds", zero=True),
    "launch": Number("seconds", zero=True),
    "efficiency": SHARE,
    "fill": Number("bytes", zero=True),
}

CLUSTER: dict[str, Field] = {
    "name": Text(),
    "gpus": Number("count", "GPUs"),
    "max_gpus": Number("count", "GPUs"),
    "pue": Number("plain", "ratio"),
    "price": Number("usd/s", zero=True, required=False),
}

CALIBRATION: dict[str, Field] = {"name": Text(), "date": Text()}


def fabric(kind: object) -> dict[str, Field]:
    """The fields of a fabric file of `kind`: those of all fabrics and the parameters of its generator."""
    own = PARAMETERS.get(kind, {}) if isinstance(kind, str) else {}
    return {**FABRIC, "parameters": Table(own, required=bool(own))}


def optional(fields: Mapping[str, Field]) -> dict[str, Field]:
    """The numbers and tables of `fields`, none of them required: what a calibration may override."""
    loose: dict[str, Field] = {}
    for key, field in fields.items():
        if isinstance(field, Number):
            loose[key] = Number(field.dimension, field.unit, field.zero, field.maximum, required=False)
        elif isinstance(field, Table):
            loose[key] = Table(optional(field.fields), required=False)
    return loose
