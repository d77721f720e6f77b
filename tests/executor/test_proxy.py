from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.axes import fold
from executor.proxy import Like, proxy
from executor.shapes import shapes
from executor.shrink import BYTES, Size, shrink, thinned, toml
from planner import catalog, schedules
from planner.errors import InputError
from planner.estimate import estimate
from planner.families.table import model_of_table
from planner.plan import prepare
from planner.rules import broken
from planner.setting import micro_batch_count
from planner.strategy import ORDERS, RECOMPUTE, ZERO, Choices, Degrees, Workload

WORK = Workload(4096, 3072, 1e12)
CLUSTER = "h100-superpod"


def made(model="kimi-k2", gpus=1024, choices=Choices(), **degrees):  # noqa: B008
    """A legal large plan."""
    plan = prepare(model, CLUSTER, gpus, WORK, choices, "nemo")
    plan = replace(plan, degrees=Degrees(gpus, **degrees))
    plan.check()
    return plan


NEXT = [name for name in catalog.names() if catalog.load(name).predicts == "tokens"]


@pytest.mark.parametrize("name", sorted(set(catalog.names()) - set(NEXT)))
def test_what_predicts_no_next_token_is_left_to_recipes(name):
    """A proxy trains on text; encoders and classifiers are refused in one sentence that says where to go."""
    with pytest.raises(InputError, match=f"{name}: predicts .* recipe"):
        shrink(catalog.load(name), Size(), 512)


@pytest.mark.parametrize("name", NEXT)
def test_every_language_model_of_the_catalogue_shrinks(name):
    """Each kind of layer stays with the same parts in the same order, on bytes, under a millionth of the size."""
    model = catalog.load(name)
    table = shrink(model, Size(), 4096)
    small = model_of_table(table, "small", "small")
    assert [[part.name for part in kind.parts] for kind in small.kinds] == [
        [part.name for part in kind.parts] for kind in model.kinds
    ]
    assert {kind.name for kind in small.kinds} == {small.kinds[kind].name for kind in small.order}
    assert (small.vocab, small.hidden, small.layers) == (BYTES, 64, 4)
    assert small.total_parameters() < 3e6
    assert (small.mtp is None, small.tied) == (model.mtp is None, model.tied)


@pytest.mark.parametrize("name", ["deepseek-v3", "minimax-text-01", "llama4-maverick", "hunyuan-large", "bloom-176b"])
def test_a_small_model_is_a_file_that_reads_as_itself(tmp_path, name):
    """The TOML of the small model gives the same model, so a record names what was trained."""
    table = shrink(catalog.load(name), Size(), 4096)
    path = tmp_path / "proxy.toml"
    path.write_text(toml(table), encoding="utf-8")
    assert replace(catalog.load(path), name="") == replace(model_of_table(table, "small", ""), name="")


def test_a_model_is_read_back_off_its_parts():
    """The widths of a kind of layer are those that built it."""
    dense, moe = shapes(catalog.load("deepseek-v3")).kinds
    assert (moe.experts, moe.topk, moe.moe_ffn, moe.shared_ffn) == (256, 8, 2048, 2048)
    assert (dense.ffn, dense.q_rank, dense.kv_rank, dense.nope_dim, dense.rope_dim) == (18432, 1536, 512, 128, 64)
    assert (dense.attention, dense.experts) == ("mla", 0)


def test_an_unknown_part_is_refused():
    """A kind of layer that would not come back the same is an input error, not a wrong model."""
    model = catalog.load("llama3.1-8b")
    kind = replace(model.kinds[0], parts=(*model.kinds[0].parts, model.kinds[0].parts[0]))
    with pytest.raises(InputError, match="can't shrink"):
        shrink(replace(model, kinds=(kind,)), Size(), 4096)


def test_ratios_stay():
    """Query to key-value heads, feed-forward to hidden, and experts per token keep their proportion."""
    model = catalog.load("mixtral-8x7b")
    (kind,) = shapes(model_of_table(shrink(model, Size(hidden=128, cut=2), 4096), "small", "small")).kinds
    assert (kind.experts, kind.topk) == (8, 2)
    assert kind.moe_ffn / 128 == 14336 / 4096
    assert (kind.heads, kind.kv_heads) == (4, 2)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 12))
def test_thinned_layers_keep_kinds_order_and_proportion(order, count):
    """Every kind stays, dense-first stays first, and no share is off by more than what one layer each takes."""
    order = tuple(order)
    few = thinned(order, max(count, len(set(order))))
    assert set(few) == set(order)
    assert len(few) == min(max(count, len(set(order))), len(order))
    for kind in set(order):
        assert abs(few.count(kind) - len(few) * order.count(kind) / len(order)) <= len(set(order))


def test_dense_first_and_alternating_layers_keep_their_places():
    """Three dense layers before 58 become one before three; alternating kinds alternate."""
    assert thinned((0,) * 3 + (1,) * 58, 4) == (0, 1, 1, 1)
    assert thinned((0, 1) * 18, 4) == (0, 1, 0, 1)


PLANS = [
    made(tp=8, pp=8, ep=8, choices=Choices(zero=1)),
    made(tp=2, pp=8, vpp=2, ep=32, choices=Choices(schedule="interleaved", recompute="full")),
    made(cp=4, tp=4, pp=4, ep=16, etp=2, choices=Choices(zero=3, recompute="selective"), replicas=2),
    made(tp=4, pp=4, ep=4, choices=Choices(order=ORDERS[1], precision="fp8")),
    made(pp=16, ep=64, micro_batch=3, choices=Choices(schedule="zb-h1", optimizer="adam-bf16")),
    made("llama3.1-405b", tp=8, pp=16, cp=2, choices=Choices(zero=2)),
    made("llama3.1-8b", gpus=8, tp=8, choices=Choices(sequence_parallel=False)),
    made("gpt-oss-120b", gpus=64, ep=64),
]


@pytest.mark.parametrize("ranks", [1, 2, 4, 6, 8, 16])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.model_name}-{PLANS.index(plan)}")
def test_a_proxy_is_legal_and_keeps_what_the_plan_is(plan, ranks):
    """By the planner's own rules; recompute, ZeRO and kinds of layers are the plan's, the axes above 1 are its own."""
    small = proxy(plan, ranks)
    assert broken(small.plan.case) == []
    now, before = small.plan.setting.choices, plan.setting.choices
    assert (now.recompute, now.zero, now.sequence_parallel) == (before.recompute, before.zero, before.sequence_parallel)
    assert now.precision == "fp32"
    for axis in ("tp", "pp", "cp", "ep", "etp"):
        assert getattr(small.plan.degrees, axis) <= getattr(plan.degrees, axis)
    assert {kind.name for kind in small.plan.setting.model.kinds} == {kind.name for kind in plan.setting.model.kinds}
    if small.plan.degrees.pp > 1 and plan.degrees.pp > 1:
        assert now.schedule == before.schedule


def test_axes_that_cross_outer_tiers_stay_first():
    """With four ranks pp and dp, which cross the core, stay, and ep rides on dp; with eight tp stays too."""
    plan = PLANS[0]
    four, eight = fold(plan, 4), fold(plan, 8)
    assert (four.pp, four.dp, four.tp, four.ep) == (2, 2, 1, 2)
    assert (eight.pp, eight.dp, eight.tp, eight.ep, eight.edp) == (2, 2, 2, 2, 2)
    inside = made("llama3.1-8b", gpus=8, tp=8, choices=Choices())
    assert fold(inside, 4).tp == 4


def test_the_share_of_bubble_stays():
    """(pp - 1) / micro-batches is that of the plan as far as whole numbers and eight micro-batches allow."""
    plan = made(pp=8, tp=8, ep=8, choices=Choices())
    count = micro_batch_count(plan.setting, plan.degrees)
    small = proxy(plan, 2)
    assert micro_batch_count(small.plan.setting, small.plan.degrees) == min(round(count / 7), 8)


def test_what_is_given_up_is_said():
    """Lost axes, the number format and the sizes are named; nothing that stayed is."""
    small = proxy(PLANS[0], 4)
    text = "\n".join(small.given_up)
    assert "tp = 8" in text
    assert "precision bf16 -> fp32" in text
    assert "parameters 1,026," in text
    assert "pp =" not in text
    assert any(line.startswith("pp = 8 across the pod -> 2") for line in small.kept)


def test_hidden_halves_until_it_fits_the_memory():
    """Too little memory makes a smaller proxy, and none at all an input error that says how much is needed."""
    plan = PLANS[0]
    wide = proxy(plan, 4, size=Size(hidden=512))
    peak = float(estimate(wide.plan.setting, wide.plan.degrees).peak)
    tight = proxy(plan, 4, size=Size(hidden=512), memory=0.99 * peak)
    assert wide.plan.setting.model.hidden == 512
    assert tight.plan.setting.model.hidden == 256
    with pytest.raises(InputError, match="the smallest proxy needs"):
        proxy(plan, 4, memory=2**20)


def test_another_layout_goes_on_with_the_same_model_and_batch():
    """`like` keeps the model and the workload whatever the axes, and refuses ranks that can't share the batch."""
    first = proxy(PLANS[5], 4)
    workload = first.plan.setting.workload
    like = Like(first.table, workload.seq_len, workload.global_batch)
    other = proxy(made("llama3.1-405b", tp=8, choices=Choices(zero=3)), 2, like=like)
    assert other.plan.setting.model == first.plan.setting.model
    assert other.plan.setting.workload.global_batch == workload.global_batch
    assert other.plan.degrees.pp == 1
    with pytest.raises(InputError, match="must divide the global batch"):
        proxy(made("llama3.1-405b", gpus=1536, choices=Choices(zero=3)), 6, like=like)


@given(st.data())
def test_any_legal_plan_has_a_legal_proxy(data):
    """Whatever the search may give: all schedules, choices and degrees that the rules allow."""
    model = data.draw(st.sampled_from(["kimi-k2", "llama3.1-405b", "gpt-oss-120b", "minimax-text-01", "hunyuan-large"]))
    powers = st.sampled_from([1, 2, 4, 8])
    choices = Choices(
        schedule=data.draw(st.sampled_from(sorted(schedules.SCHEDULES))),
        recompute=data.draw(st.sampled_from(RECOMPUTE)),
        zero=data.draw(st.sampled_from(ZERO)),
        order=data.draw(st.sampled_from(ORDERS)),
    )
    axes = {axis: data.draw(powers) for axis in ("tp", "pp", "cp", "ep", "etp", "vpp", "micro_batch", "replicas")}
    plan = replace(prepare(model, CLUSTER, 1024, WORK, choices, "nemo"), degrees=Degrees(1024, **axes))
    if broken(plan.case):
        return
    for ranks in (1, 2, 4, 8):
        assert broken(proxy(plan, ranks).plan.case) == []
