"""Peaks of published runs: stages as frameworks cut them, chunks in flight, and the kind of figure a source prints."""

from dataclasses import fields, replace

import numpy as np
import pytest

from planner import stack
from planner.estimate import estimate, memories, units
from planner.layout import layer_kinds
from planner.plan import Plan
from planner.schedules import get
from planner.simulate.replay import replay, stage_durations
from planner.strategy import Choices, Degrees, Workload
from planner.validate.peak import predicted_peak, printed
from planner.validate.read import measured_peak
from planner.validate.recipes import _facts, software
from planner.validate.stages import as_cut, step_as_cut
from planner.validate.translate import translate
from tests.planner.models import DENSE, LLAMA_405B, setting
from tests.planner.test_validate import RUN, changed


def plan(shape, pp, vpp=1, batches=64, schedule=None):
    """One replica of `shape` in `pp` stages of `vpp` chunks."""
    name = schedule or ("interleaved" if vpp > 1 else "1f1b")
    where = setting(shape, pp, Choices(name), Workload(2048, batches, 1e9))
    return Plan("x", "x", where, Degrees(pp, pp=pp, vpp=vpp))


def layers(layout):
    """Layers of each stage."""
    return [stage[0] for stage in layout.counts]


@pytest.mark.parametrize(
    ("count", "pp", "wanted"),
    [
        (8, 4, [2, 2, 2, 2]),
        (22, 8, [2, 3, 3, 3, 3, 3, 3, 2]),  # embedding and head take a place each
        (32, 3, [11, 12, 9]),
        (76, 16, [4, *[5] * 14, 2]),  # what is missing to even places is missing in the last stage
        (3, 4, [1, 2, 0, 0]),
    ],
)
def test_stages_are_cut_by_layers(count, pp, wanted):
    """Evenly; else with a place each for embedding and head, filled from the front."""
    found = as_cut(plan(replace(DENSE, layers=count), pp))
    assert layers(found) == wanted
    kinds = len(layer_kinds(plan(DENSE, pp).setting.model))
    assert [sum(stage[k] for stage in found.counts) for k in range(kinds)] == list(found.total)


def test_internevo_gives_the_last_stages_one_layer_more():
    """Its partition_uniform puts the remainder behind."""
    one = plan(replace(DENSE, layers=32), 3)
    setting_ = replace(one.setting, stack=stack.load("internevo"))
    assert layers(as_cut(replace(one, setting=setting_))) == [10, 11, 11]


@pytest.mark.parametrize(
    ("pp", "wanted"),
    [(1, [62]), (4, [16, 16, 16, 14]), (8, [8] * 7 + [6]), (16, [4] * 15 + [2]), (32, [1, *[2] * 30, 1])],
)
def test_stages_with_mtp_are_those_of_megatron_bridge(pp, wanted):
    """DeepSeek-V3's 61 layers and its module: Et*4|(t*4|)*14tmL on 16 stages, Et|(tt|)*30mL on 32."""
    one = plan(replace(DENSE, layers=61, mtp_layers=1), pp)
    counts = as_cut(one).counts
    mtp = len(layer_kinds(one.setting.model)) - 1
    assert [stage[0] + stage[mtp] for stage in counts] == wanted
    assert [stage[mtp] for stage in counts] == [0] * (pp - 1) + [1]


@pytest.mark.parametrize(
    ("schedule", "pp", "vpp"),
    [("1f1b", 4, 1), ("gpipe", 4, 1), ("zb-h1", 4, 1), ("interleaved", 4, 2), ("interleaved", 2, 4)],
)
def test_the_head_slows_the_last_stage(schedule, pp, vpp):
    """A step on the stages as cut takes as long as the schedule with them, replayed."""
    one = plan(replace(DENSE, layers=8, vocab=256_000), pp, vpp, 16, schedule)
    step, shape = step_as_cut(one.setting, one.degrees), as_cut(one)
    whole = units(one.setting, one.degrees)
    ahead, behind = (
        np.array(
            [[sum(n * getattr(u.cost.time, side) for n, u in zip(row, whole, strict=True))] for row in shape.counts]
        )
        for side in ("ahead", "behind")
    )
    head = max(range(pp), key=lambda rank: ahead[rank, 0])
    assert head == pp - 1
    times = [np.repeat(each / vpp, vpp, axis=1) for each in (ahead, behind)]
    for each, total in zip(times, (ahead, behind), strict=True):  # the whole difference is in the last chunk
        each[-1] = total[0, 0] / vpp
        each[-1, -1] += total[-1, 0] - total[0, 0]
    program = get(schedule).program(pp, vpp, 16)
    makespan = replay(program, stage_durations(get(schedule), *times)).makespan
    spent = step.compute + step.launch + step.recompute + step.tensor + step.imbalance + step.bubble
    assert step.imbalance > 0.05 * makespan
    assert float(spent) == pytest.approx(makespan, rel=0.01)


@pytest.mark.parametrize("batches", [4, 8, 64])
@pytest.mark.parametrize(("pp", "vpp"), [(4, 1), (4, 2), (4, 3), (2, 6), (3, 4)])
def test_chunks_in_flight_are_those_of_the_program(pp, vpp, batches):
    """At the end of the warm-up every chunk holds as many micro-batches as the program has sent through it."""
    many = batches // pp * pp if vpp > 1 else batches
    if not many:
        pytest.skip("interleaving needs a round of micro-batches")
    one = plan(replace(DENSE, layers=pp * vpp), pp, vpp, many)
    found = as_cut(one)
    schedule = get(one.setting.choices.schedule)
    for rank, actions in enumerate(schedule.program(pp, vpp, many)):
        first_back = next(i for i, action in enumerate(actions) if action.kind == "B")
        ahead = [sum(a.chunk == chunk for a in actions[:first_back]) for chunk in range(vpp)]
        assert found.held[rank][0] == sum(ahead)
        assert sum(ahead) == vpp * schedule.in_flight(pp, vpp, many, rank)


def test_the_first_chunk_of_llama_405b_holds_one_layer():
    """PP 8, VPP 8, 126 layers: 15 micro-batches of the one layer beside the embedding, 8 of the other seven pairs."""
    found = as_cut(plan(LLAMA_405B, 8, 8))
    assert (found.counts[0][0], found.held[0][0]) == (15, 15 * 1 + 8 * 7 * 2)
    assert found.held[7][0] == 1 * 1 + 8 * 7 * 2


def test_zb_2p_holds_twice_the_first_stage_less_one():
    """On every stage, as far as there are micro-batches."""
    one = plan(replace(DENSE, layers=8), 4, schedule="zb-h1")
    assert [stage[0] for stage in as_cut(one, doubled=True).held] == [7 * 2] * 4
    few = plan(replace(DENSE, layers=8), 4, batches=5, schedule="zb-h1")
    assert [stage[0] for stage in as_cut(few, doubled=True).held] == [5 * 2] * 4


def test_offloaded_layers_hold_no_activations():
    """Their parameters stay on the GPU."""
    one = plan(replace(DENSE, layers=8), 1)
    found = as_cut(one, offloaded=3)
    assert (found.counts[0][0], found.held[0][0]) == (8, 5)


def test_even_chunks_hold_what_the_search_says():
    """Without embedding and head to speak of, the peak is that of the plan's own layout."""
    one = plan(replace(DENSE, layers=16, vocab=8), 4, 2)
    here = memories(units(one.setting, one.degrees), as_cut(one), one.setting, one.degrees)
    assert max(float(s.total) for s in here) == pytest.approx(float(estimate(one.setting, one.degrees).peak), rel=1e-3)


def test_slack_gives_way_where_memory_runs_out():
    """A caching allocator holds no more than the GPU has, unless the tensors alone need more."""
    one = plan(DENSE, 1)
    stage = estimate(one.setting, one.degrees).stages[0]
    allocated = stage.total - stage.framework
    outside = one.setting.gpu.reserve

    def shown(capacity):
        gpu = replace(one.setting.gpu, hbm_capacity=capacity)
        where = replace(one.setting, cluster=replace(one.setting.cluster, gpu=gpu))
        return printed(stage, replace(one, setting=where), "Korthikanti")

    assert shown(1e15) == pytest.approx(stage.total)
    assert shown(1.055 * allocated + outside) == pytest.approx(1.055 * allocated + outside)
    assert shown(0.5 * allocated) == pytest.approx(1.05 * allocated + outside)


def test_a_known_policy_counts_though_the_row_is_silent():
    """A row that is silent about recompute runs again, and holds, what its published policy says."""
    source = "NVIDIA/dgxc-benchmarking v25.02.02 maxtext/README.md"
    silent = changed(framework="MaxText (JAX)", parallel={"tp": 1, "pp": 1, "vpp": None, "cp": 1, "zero": "zero3"})
    known = {**silent, "source": source}
    one, other = translate(silent), translate(known)
    assert estimate(one.setting, one.degrees).step.recompute == 0.0
    assert estimate(other.setting, other.degrees).step.recompute > 0.0
    assert predicted_peak(other, known) < 0.5 * predicted_peak(one, silent)


def test_mlperf_and_bloom_print_the_first_stage():
    """The peak of others is that of their fullest stage."""
    deep = changed(parallel={"tp": 1, "pp": 4, "ep": 1, "etp": None, "dp": 2})
    first, largest = (predicted_peak(translate(deep), {**deep, "source": s}) for s in ("MLCommons x", "SimuMax"))
    assert first <= largest


def test_zero_bubble_prints_decimal_gigabytes():
    """Its software divides bytes by a million; all others divide by powers of two."""
    row = {"measured": {"peak_mem_gib": 2}}
    assert measured_peak({**row, "source": "Qi et al. Zero Bubble"}) == 2e9
    assert measured_peak({**row, "source": "Megatron-LM"}) == 2 * 2**30


def test_facts_of_a_run_come_from_its_software():
    """The first pattern found in framework, source, precision and ZeRO counts; a run that none fits has none."""
    assert software(changed(framework="nanotron v0.5"))["held_gradient"] == 6
    fsdp, zero = (changed(framework="InternEvo v0.2", parallel={"zero": z}) for z in ("fsdp", "zero1"))
    assert (software(fsdp), software(zero)) == ({}, {"held_gradient": 4})
    assert software(RUN) == {}


def test_every_fact_has_a_source_and_a_meaning():
    """Fields are those of a stack, and a stack takes them."""
    known = {f.name for f in fields(stack.Stack)}
    for fact in _facts():
        assert fact["source"]
        values = {name: value for name, value in fact.items() if name not in ("source", "pattern")}
        assert values.keys() <= known
        assert replace(stack.load("megatron-core"), **values) != stack.load("megatron-core")


def test_a_batch_of_layouts_knows_no_flights():
    """Plans of a search price the schedule's mean chunk; the estimate of one of them is the same number."""
    one = plan(replace(DENSE, layers=16), 4, 2)
    batch = Degrees(np.array([4]), pp=4, vpp=2)
    shape = estimate(one.setting, one.degrees).layout
    assert shape.held is None
    scalar = memories(units(one.setting, one.degrees), shape, one.setting, one.degrees)
    array = memories(units(one.setting, batch), shape, one.setting, batch)
    assert [float(stage.total) for stage in scalar] == [stage.total.item() for stage in array]
