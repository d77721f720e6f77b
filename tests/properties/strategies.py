"""What hypothesis draws: settings of small models and legal plans in them."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from planner.optimizers import MASTERS, OPTIMIZERS
from planner.schedules import SCHEDULES
from planner.setting import Setting, Teacher
from planner.strategy import MESSAGES, ORDERS, RECOMPUTE, ZERO, Choices, Degrees, Workload
from tests.planner.models import SMALL, legal, setting

WORLDS = (16, 24, 64)
CLUSTERS = ("h100-superpod", "b200-superpod", "mi300x", "meta-24k-roce")


@st.composite
def choices(draw: st.DrawFn) -> Choices:
    """Any categories of a strategy."""
    return Choices(
        schedule=draw(st.sampled_from(sorted(SCHEDULES))),
        recompute=draw(st.sampled_from(RECOMPUTE)),
        zero=draw(st.sampled_from(ZERO)),
        order=draw(st.sampled_from(ORDERS)),
        precision=draw(st.sampled_from(("bf16", "fp8"))),
    )


@st.composite
def methods(draw: st.DrawFn, plain: Choices) -> Choices:
    """The same categories with any optimizer, master copy and compression that goes with them."""
    return replace(
        plain,
        optimizer=draw(st.sampled_from(sorted(OPTIMIZERS))),
        master=draw(st.sampled_from(sorted(MASTERS))),
        prune=draw(st.sampled_from(("none", "2:4", "2:4-experts", "unstructured:0.9"))),
        quantize=draw(st.sampled_from(("none", "int8", "int4", "int8-dynamic"))),
        messages=draw(st.sampled_from(MESSAGES)) if plain.precision == "fp8" else "base",
    )


@st.composite
def batches(draw: st.DrawFn, most: int = 12) -> tuple[Setting, Degrees]:
    """A setting and up to `most` legal plans of it as one batch."""
    shape = draw(st.sampled_from(SMALL))
    where = setting(
        shape,
        draw(st.sampled_from(WORLDS)),
        draw(choices()),
        Workload(draw(st.sampled_from((1536, 4096))), 192, 1e9),
        draw(st.sampled_from(CLUSTERS)),
        draw(st.sampled_from(("megatron-core", "megatron-2022"))),
    )
    every = legal(shape, where)
    where = replace(where, choices=draw(methods(where.choices)))
    if draw(st.booleans()):
        where = replace(where, teacher=Teacher(where.model))
    last = np.size(every.tp) - 1
    index = draw(st.lists(st.integers(0, last), min_size=1, max_size=most))
    return where, every.take(np.array(index, dtype=np.int64))


@st.composite
def plans(draw: st.DrawFn) -> tuple[Setting, Degrees]:
    """A setting and one legal plan of it, of plain ints."""
    where, rows = draw(batches(most=1))
    return where, rows.take(0)
