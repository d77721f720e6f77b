"""Memory of a stage against counts that are known in closed form."""

from dataclasses import replace

import pytest

from planner.estimate import estimate, units
from planner.layout import layer_kinds, stage_counts
from planner.memory.activations import layer_activations
from planner.sharding import held, stage_held
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import DENSE, GPT_22B, LLAMA_405B, MOE, model, setting

SEQ = 2048


def saved(shape, recompute="none", stack_name="megatron-core", *, sequence_parallel=True, **degrees):
    """Bytes that one micro-batch leaves in the first kind of layer."""
    choices = Choices(recompute=recompute, sequence_parallel=sequence_parallel)
    where = setting(shape, 64, choices, Workload(SEQ, 64, 1e9), stack_name=stack_name)
    return layer_activations(where.model.kinds[0], where, Degrees(64, **degrees), recompute)


def korthikanti(shape, batch, tp, scores=0):
    """Korthikanti 2022 eq. 2-4 with sequence parallelism, less what we don't keep.

    34 s b h / t is: 2 norm input + 2 qkv input + 6 q, k, v + 2 projection input + 1 dropout mask; 2 norm input +
    2 up input + 8 activation input + 8 down input + 1 dropout mask. Without dropout it is 32; the statistics of the
    fused softmax add 4 bytes a row and head. Unfused, `scores` bytes a score come on top.
    """
    hidden, heads = shape.hidden, shape.heads
    return batch * SEQ / tp * (32 * hidden + 4 * heads + scores * heads * SEQ)


@pytest.mark.parametrize(("batch", "tp"), [(1, 1), (1, 8), (4, 8), (2, 2)])
def test_gpt_keeps_korthikantis_count_without_dropout(batch, tp):
    """Fused attention: 34 s b h / t less the two dropout masks, 2 s b h / t, and the row statistics."""
    assert saved(GPT_22B, tp=tp, micro_batch=batch) == pytest.approx(korthikanti(GPT_22B, batch, tp), rel=1e-12)


def test_unfused_attention_keeps_its_scores():
    """5 a s / h more of Korthikanti's unit: 5 a s² b bytes a layer."""
    found = saved(GPT_22B, stack_name="megatron-2022", tp=8, micro_batch=4)
    plain = korthikanti(GPT_22B, 4, 8, scores=5)
    assert found == pytest.approx(plain, rel=1e-12)


def test_full_recompute_keeps_the_input_of_the_layer():
    """2 s b h bytes, over tp with sequence parallelism, whole without."""
    assert saved(GPT_22B, "full", tp=8, micro_batch=4) == 2 * SEQ * 4 * GPT_22B.hidden / 8
    assert saved(GPT_22B, "full", sequence_parallel=False, tp=8, micro_batch=4) == 2 * SEQ * 4 * GPT_22B.hidden


def test_without_sequence_parallelism_norms_and_block_inputs_are_whole():
    """Korthikanti 2022 eq. 2: 10 s b h (8 without dropout) stay on every rank, the other 24 are cut."""
    found = saved(GPT_22B, sequence_parallel=False, tp=8)
    hidden = GPT_22B.hidden
    assert found == pytest.approx(SEQ * (8 * hidden + 24 * hidden / 8 + 4 * GPT_22B.heads / 8), rel=1e-12)


@pytest.mark.parametrize("cp", [2, 4, 8])
def test_context_parallelism_cuts_activations_evenly(cp):
    """Every saved tensor is cut along the sequence."""
    assert saved(DENSE, cp=cp) == pytest.approx(saved(DENSE) / cp, rel=1e-12)


@pytest.mark.parametrize(
    ("zero", "per_parameter"),
    [
        (0, lambda n: 2 + 4 + 12),
        (1, lambda n: 2 + 4 + 12 / n),
        (2, lambda n: 2 + (4 + 12) / n),
        (3, lambda n: (2 + 4 + 12) / n),
    ],
)
def test_zero_shards_what_its_table_says(zero, per_parameter):
    """Rajbhandari 2020 fig. 1, with fp32 gradients (4 bytes) as Megatron-LM keeps them: 18 bytes a parameter."""
    where = setting(DENSE, 16, Choices(zero=zero))
    stage = estimate(where, Degrees(16)).stages[0]
    states = stage.parameters + stage.gradients + stage.optimizer
    assert states == pytest.approx(per_parameter(16) * where.model.total_parameters(), rel=1e-12)


def test_hybrid_shards_hold_one_copy_each():
    """With 4 copies of the states each is sharded over a quarter of the ranks."""
    where = setting(DENSE, 16, Choices(zero=3))
    whole, copies = (estimate(where, Degrees(16, replicas=n)).stages[0] for n in (1, 4))
    assert copies.optimizer == pytest.approx(4 * whole.optimizer)


def test_llama_405b_holds_twelve_bytes_of_optimizer_over_the_replicas():
    """TP 8, PP 16, 16,384 GPUs: the largest stage's parameters / 8 · 12 bytes / (dp · cp)."""
    where = setting(LLAMA_405B, 16384, workload=Workload(8192, 2048, 15e12))
    degrees = Degrees(16384, tp=8, pp=16)
    assert degrees.dp == 128
    found = estimate(where, degrees)
    kinds = layer_kinds(where.model)
    for counts, stage in zip(found.layout.counts, found.stages, strict=True):
        own = sum(n * held(kind, degrees).dense for n, kind in zip(counts, kinds, strict=True))
        assert stage.optimizer == pytest.approx(12 * own / 128)
        assert stage.parameters == pytest.approx(2 * own)
    layers = sum(n * held(kind, degrees).dense for n, kind in zip(found.layout.total, kinds, strict=True))
    assert 8 * layers == pytest.approx(405.85e9, rel=1e-3)


def test_experts_shard_over_their_own_replicas():
    """Expert optimizer state is cut by edp = world / (pp · ep · etp), not by dp · cp."""
    where = setting(MOE, 16)
    degrees = Degrees(16, tp=2, ep=4)
    (stage,) = estimate(where, degrees).stages
    parts = [held(layer, degrees) for layer in where.model.stack()]
    dense, expert = sum(x.dense for x in parts), sum(x.expert for x in parts)
    assert stage.optimizer == pytest.approx(12 * (dense / 8 + expert / 4))


def test_earlier_stages_hold_more_micro_batches():
    """1F1B keeps pp - rank micro-batches: with equal stages activations fall in equal steps."""
    even = replace(DENSE, layers=32, vocab=64)
    where = setting(even, 16, workload=Workload(SEQ, 256, 1e9))
    degrees = Degrees(16, pp=4, micro_batch=1)
    found = estimate(where, degrees)
    kinds = units(where, degrees)
    for counts, rank, stage in zip(found.layout.counts, found.layout.stage, found.stages, strict=True):
        own = sum(n * kind.memory.saved for n, kind in zip(counts, kinds, strict=True))
        assert stage.activations == pytest.approx((4 - rank) * own)


def test_logits_stand_on_the_last_stage_only():
    """6 bytes a logit with a fused loss: tokens · vocab / tp."""
    where = setting(DENSE, 16)
    found = estimate(where, Degrees(16, tp=2, pp=2))
    head = len(where.model.kinds) + 1
    for counts, stage in zip(found.layout.counts, found.stages, strict=True):
        assert stage.logits == pytest.approx(counts[head] * 6 * SEQ * DENSE.vocab / 2)


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize(("ep", "etp"), [(1, 1), (2, 1), (8, 1), (4, 2)])
def test_ranks_together_hold_the_model(tp, ep, etp):
    """Cut parts add up to the model over tp and over ep · etp; whole copies are one of them per rank."""
    whole = model(MOE)
    degrees = Degrees(64, tp=tp, ep=ep, etp=etp)
    for kind in layer_kinds(whole):
        per_rank = held(kind, degrees)
        dense, copied, expert = split(kind)
        assert per_rank.dense * tp == pytest.approx(dense + copied * tp)
        assert per_rank.expert * ep * etp == pytest.approx(expert)
        assert dense + copied + expert == sum(kind.parameters().values())


def split(kind):
    """Parameters of a layer: cut by tp, whole on each rank of it, experts."""
    alone, halved = held(kind, Degrees(64)), held(kind, Degrees(64, tp=2))
    cut = 2 * (alone.dense - halved.dense)
    return cut, alone.dense - cut, alone.expert


@pytest.mark.parametrize("pp", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_stages_together_hold_the_model(pp, tied):
    """Parameters over the stages are all parameters, and a tied output matrix is held twice once stages part."""
    where = setting(replace(DENSE, tied=tied), 24)
    degrees = Degrees(24, pp=pp)
    each = tuple(unit.cost.held for unit in units(where, degrees))
    stages = stage_counts(where.model, SEQ, pp, 1)
    total = sum(stage_held(each, counts, where.model, degrees).dense for counts in stages)
    copy = DENSE.hidden * DENSE.vocab if tied and pp > 1 else 0
    assert total == where.model.total_parameters() + copy
