"""The table of rules: the same row masks a batch, words one plan's fault and names a value that would do."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import schedules
from planner.batch_size import Stage
from planner.divisibility import divisors, nearest_divisor
from planner.rules import broken, rules
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import CONVOLUTIONAL, DENSE, MOE, PICTURES, SMALL, case, model, setting
from tests.properties.strategies import choices

SMALL_INTS = st.integers(1, 9)
WORK = Workload(2048, 64, 1e9)
WIDE = Choices(sequence_parallel=False)
WITHOUT_ZERO = Choices(zero=0)
INNER = Choices(order="tp-cp-ep-pp-dp")

# rule, shape, choices, degrees (16 GPUs), what the message must contain
BROKEN = [
    ("world", DENSE, Choices(), {"tp": 3}, "3"),
    ("heads", DENSE, Choices(), {"tp": 16}, "16"),
    ("kv_heads", replace(DENSE, heads=12, head_dim=64, kv_heads=3), Choices(), {"tp": 2}, "2"),
    ("widths", replace(DENSE, ffn=2050), Choices(), {"tp": 4}, "4"),
    ("sequence", DENSE, Choices(), {"cp": 16}, "16"),
    ("whole_sequences", PICTURES, Choices(), {"cp": 2}, "2"),
    ("convolutions", CONVOLUTIONAL, Choices(), {"tp": 2}, "2"),
    ("format", DENSE, Choices(precision="nvfp4"), {}, "nvfp4"),
    ("sequence_parallel", MOE, WIDE, {"tp": 2}, "2"),
    ("sparse", DENSE, Choices(prune="2:4", precision="fp32"), {}, "fp32"),
    ("quantize", DENSE, Choices(quantize="fp8"), {}, "bf16"),
    ("messages", DENSE, Choices(messages="fp8"), {}, "bf16"),
    ("master", DENSE, Choices(master="bf16", precision="fp32"), {}, "fp32"),
    ("teacher", DENSE, Choices(), {"pp": 16}, "16"),
    ("ramp", DENSE, Choices(), {"micro_batch": 4}, "64"),
    ("experts", MOE, Choices(), {"ep": 3}, "3"),
    ("expert_widths", replace(MOE, moe_ffn=510), Choices(), {"etp": 4}, "4"),
    ("folding", MOE, Choices(), {"pp": 4, "ep": 8}, "8"),
    ("order", MOE, INNER, {"pp": 2, "ep": 2}, "tp-cp-ep-pp-dp"),
    ("batch", DENSE, Choices(), {"micro_batch": 8}, "128"),
    ("layers", DENSE, Choices(schedule="interleaved"), {"pp": 4, "vpp": 3}, "12"),
    ("replicas", DENSE, WITHOUT_ZERO, {"replicas": 2}, "2"),
    ("schedule_micro_batches", DENSE, Choices(), {"micro_batch": 8}, "0"),
    ("schedule_whole_stage", DENSE, Choices(), {"vpp": 2}, "2"),
    ("schedule_pipelined", DENSE, Choices(schedule="gpipe"), {}, "1"),
    ("schedule_chunks", DENSE, Choices(schedule="interleaved"), {"pp": 2}, "1"),
    ("schedule_rounds", DENSE, Choices(schedule="interleaved"), {"pp": 4, "micro_batch": 4, "tp": 1, "vpp": 2}, "4"),
]
SHORT = Workload(16, 64, 1e9)


def example(row):
    """The case of a row of `BROKEN`."""
    name, shape, chosen, degrees, _ = row
    works = {
        "sequence": SHORT,
        "schedule_rounds": Workload(2048, 24, 1e9),
        "ramp": replace(WORK, ramp=(Stage(32, 1e8),)),
    }
    here = case(setting(shape, 16, chosen, works.get(name, WORK)), Degrees(16, **degrees))
    return replace(here, teacher=model(replace(shape, layers=4))) if name == "teacher" else here


@pytest.mark.parametrize("row", BROKEN, ids=lambda row: row[0])
def test_a_broken_rule_says_so_with_its_number(row):
    """Each rule has a plan that breaks it, and its sentence contains the offending value."""
    faults = {fault.where: fault for fault in broken(example(row))}
    fault = faults[f"strategy.{row[0]}"]
    assert re.search(rf"(?<!\d){re.escape(row[4])}(?!\d)", fault.expected), fault.expected


def test_no_rule_is_dead():
    """The rows above break every rule of the table, whatever the schedule."""
    names = {rule.name for schedule in schedules.SCHEDULES for rule in rules(Choices(schedule=schedule))}
    assert names == {row[0] for row in BROKEN}


@pytest.mark.parametrize("row", BROKEN, ids=lambda row: row[0])
def test_the_nearest_value_keeps_the_rule(row):
    """Where a rule proposes a value, the plan with it no longer breaks that rule."""
    here = example(row)
    fault = next(found for found in broken(here) if found.where == f"strategy.{row[0]}")
    if fault.nearest is None:
        return
    axis, value = fault.nearest.split(" = ")
    better = replace(here, d=replace(here.d, **{axis: int(value)}))
    rule = next(found for found in rules(here.choices) if found.name == row[0])
    assert bool(np.all(rule.holds(better))), fault.nearest


NO_HELP = [
    ("world", {"tp": 2, "pp": 3}),  # 3 stages never divide 16 GPUs
    ("batch", {"micro_batch": 2}),  # 16 replicas never divide 24 sequences
    ("folding", {"etp": 3}),  # 3 never divides 16
]


@pytest.mark.parametrize(("name", "degrees"), NO_HELP, ids=lambda x: x if isinstance(x, str) else "")
def test_no_value_is_proposed_where_none_would_do(name, degrees):
    """When another axis is at fault the sentence proposes nothing for this one, rather than a value that breaks too."""
    shape = MOE if name == "folding" else DENSE
    here = case(setting(shape, 16, workload=Workload(2048, 24, 1e9)), Degrees(16, **degrees))
    fault = next(found for found in broken(here) if found.where == f"strategy.{name}")
    assert fault.nearest is None


@given(
    st.sampled_from(SMALL),
    choices(),
    st.lists(
        st.tuples(*[st.sampled_from((1, 2, 3, 4, 8))] * 5, SMALL_INTS, SMALL_INTS, SMALL_INTS), min_size=1, max_size=8
    ),
)
def test_the_mask_is_each_plans_own_verdict(shape, chosen, rows):
    """A batch passes the rules exactly where `broken` finds nothing, plan by plan."""
    where = setting(shape, 16, chosen, WORK)
    names = ("tp", "pp", "cp", "ep", "etp", "micro_batch", "vpp", "replicas")
    columns = {
        name: np.array(column, dtype=np.int64) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    batch = Degrees(world=np.full(len(rows), 16), **columns)
    mask = np.ones(len(rows), dtype=bool)
    for rule in rules(chosen):
        mask &= np.broadcast_to(rule.holds(case(where, batch)), mask.shape)
    alone = [not broken(case(where, batch.take(i))) for i in range(len(rows))]
    assert mask.tolist() == alone


@pytest.mark.parametrize("axis", ["tp", "pp", "vpp", "cp", "ep", "etp", "micro_batch", "replicas"])
def test_a_degree_below_one_is_a_fault_of_its_own(axis):
    """Zero is refused by name before any rule could divide by it."""
    here = case(setting(MOE), Degrees(16, **{axis: 0}))
    assert [(fault.where, fault.value) for fault in broken(here)] == [(f"strategy.{axis}", 0)]


@given(st.integers(1, 5000), st.integers(1, 6000))
def test_the_nearest_divisor_is_the_nearest(total, value):
    """It divides, and no other divisor is closer."""
    found = nearest_divisor(total, value)
    assert total % found == 0
    assert abs(found - value) == min(abs(x - value) for x in range(1, total + 1) if total % x == 0)


@given(st.integers(1, 5000))
def test_divisors_are_all_of_them(total):
    """Every divisor once, ascending."""
    assert divisors(total) == [x for x in range(1, total + 1) if total % x == 0]
