"""What a stack runs again, launches once, sends whole or sorts twice."""

from dataclasses import replace

import pytest

from planner.cost.host import REPLAYED, launched
from planner.cost.layer import layer_time
from planner.estimate import estimate
from planner.recompute import MODULES, repeated
from planner.strategy import Choices, Degrees, Workload
from tests.planner.models import DENSE, KIMI_K2, MOE, setting

SELECTIVE = Choices(recompute="selective")


def with_stack(shape, choices=SELECTIVE, **fields):
    """A small setting with facts of its stack replaced."""
    where = setting(shape, 8, choices)
    return replace(where, stack=replace(where.stack, **fields))


def again(where):
    """Names of the parts of the last kind of layer that run again, with their share."""
    shares = {part.name: repeated(part, where) for part in where.model.kinds[-1].parts}
    return {name: share for name, share in shares.items() if share}


@pytest.mark.parametrize(
    ("shape", "module", "among"),
    [
        (MOE, "moe", {"router", "experts_up", "experts_down", "permute", "unpermute", "experts_activation"}),
        (MOE, "moe_act", {"experts_activation"}),
        (DENSE, "mlp", {"up", "down", "activation"}),
        (DENSE, "layernorm", {"attention_norm", "ffn_norm"}),
        (KIMI_K2, "mla_up_proj", {"q_up", "kv_up"}),
    ],
)
def test_a_module_runs_its_own_parts_again(shape, module, among):
    """Each module repeats what its name says, whole, and nothing outside it."""
    found = again(with_stack(shape, recomputed=(module,)))
    assert among <= set(found)
    assert set(found.values()) == {1.0}
    assert not {"attention_out", "core", "attention_residual"} & set(found)
    assert module in MODULES


def test_a_policy_keeps_what_it_names():
    """Every second multiply in torchtitan's op mode; all but the named matrices under a policy of JAX."""
    assert again(with_stack(DENSE, recomputed=("matmuls",)))["up"] == 0.5
    kept = again(with_stack(DENSE, kept_outputs=("qkv",)))
    assert "qkv" not in kept
    assert {"up", "down", "core"} <= set(kept)


def test_unfused_attention_alone_is_a_module():
    """A fused kernel recomputes its scores by itself, so `core_attn` repeats only one that is not."""
    assert "core" not in again(with_stack(DENSE, recomputed=("core_attn",), flash_attention=True))
    assert "core" in again(with_stack(DENSE, recomputed=("core_attn",), flash_attention=False))


def test_the_ends_of_a_model_never_run_again():
    """Embedding and head lie outside what frameworks recompute: the term is that of the layers."""
    where = with_stack(DENSE, Choices(recompute="full"))
    one = Degrees(8)
    layers = len(where.model.order) * layer_time(where.model.kinds[0], where, one).recompute
    batches = where.workload.global_batch // 8
    assert estimate(where, one).step.recompute == pytest.approx(batches * layers)


def test_graphs_leave_little_to_the_host():
    """A scope holds its own parts; the rest is launched one by one."""
    where = with_stack(MOE, graphed=("attn", "moe_router"))
    left = {part.name: launched(part, where.stack) for part in where.model.kinds[-1].parts}
    assert left["attention_norm"] == left["router"] == left["core"] == REPLAYED
    assert left["experts_up"] == left["permute"] == 1.0
    every = with_stack(MOE, graphed=("all",), expert_gap=1e-4)
    none = replace(every, stack=replace(every.stack, graphed=()))
    one = Degrees(8, ep=8)
    assert estimate(every, one).step.launch < 0.2 * estimate(none, one).step.launch


def test_tokens_are_sorted_apart_from_other_work():
    """What permuting moves is the stack's own, whatever its other memory-bound work costs."""
    one = Degrees(8, ep=8)
    fused, plain, twice = (
        estimate(with_stack(MOE, permute_traffic=passes), one).step.compute for passes in (0.0, 1.0, 2.0)
    )
    assert plain > fused
    assert twice - plain == pytest.approx(plain - fused, rel=1e-6)


def test_stages_send_in_parts():
    """Without sequence parallelism a rank sends the whole tensor, or its part where the next stage gathers it."""
    where = setting(DENSE, 16, Choices(sequence_parallel=False), Workload(65_536, 16, 1e9), cluster="h100-superpod")
    whole, parts = (replace(where, stack=replace(where.stack, scattered_sends=flag)) for flag in (False, True))
    deep = Degrees(16, tp=8, pp=2)
    assert 0.0 < estimate(parts, deep).step.pipeline < 0.5 * estimate(whole, deep).step.pipeline


def test_reserved_multiprocessors_do_not_compute():
    """Half of them kept for communication halve the rate."""
    free = with_stack(DENSE)
    kept = replace(free, stack=replace(free.stack, reserved_sms=free.gpu.sm_count / 2))
    assert kept.sustained == pytest.approx(0.5 * free.sustained)
