"""What the host and its attention kernel cost."""

from dataclasses import replace

import numpy as np
import pytest

from planner import fitted
from planner.cost.host import BACKWARD, UNFUSED_SOFTMAX
from planner.cost.layer import layer_time
from planner.estimate import estimate
from planner.strategy import Degrees
from tests.planner.models import DENSE, setting

ONE = Degrees(8, tp=1)


def with_stack(**fields):
    """The small dense setting with mechanisms of its stack replaced."""
    where = setting(DENSE)
    return replace(where, stack=replace(where.stack, **fields))


def test_a_slow_host_is_a_floor():
    """Launches hide behind a busy GPU; where they take longer than its work, a layer takes as long as they do."""
    layer = setting(DENSE).model.kinds[0]
    quick, cheap, dear = (layer_time(layer, with_stack(launch_cost=cost), ONE) for cost in (0.0, 1e-7, 1.0))
    assert cheap.total == pytest.approx(quick.total, rel=1e-3)
    parts = sum(type(part).__name__ in {"Linear", "Pointwise", "Core"} for part in layer.parts)
    matrices = sum(type(part).__name__ == "Linear" for part in layer.parts)
    assert dear.total == pytest.approx(parts + BACKWARD * (parts + matrices), rel=1e-2)


def test_the_host_waits_alike_for_one_plan_and_many():
    """Scalar and batch agree bit for bit."""
    where = with_stack(launch_cost=1e-4)
    many = estimate(where, Degrees(np.array([8, 8]), tp=np.array([1, 2]))).step.total
    each = [float(estimate(where, Degrees(8, tp=tp)).step.total) for tp in (1, 2)]
    assert many.tolist() == each


def test_grace_launches_at_its_own_pace():
    """The node says who launches the kernels; the fitted pace of that host slows its gaps."""
    slow, usual = (setting(DENSE, cluster=name) for name in ("gb200-nvl72", "b200-superpod"))
    assert (slow.cluster.node.host, usual.cluster.node.host) == ("grace", "x86")
    assert slow.host_pace == fitted.table()["host_pace"]["grace"]
    assert usual.host_pace == 1.0


def test_an_older_attention_kernel_is_slower():
    """FlashAttention-1 takes twice the time of its successor, and that more than the profile's kernel on Hopper."""
    kernels = ("profile", "flash-attention-2", "flash-attention-1")
    rates = [with_stack(attention_kernel=name).attention_rate for name in kernels]
    assert rates[0] > rates[1] > rates[2]
    assert rates[1] == pytest.approx(2 * rates[2])


def test_unaligned_heads_leave_the_tensor_cores():
    """Unfused attention over 108 channels a head is much slower than over 112."""
    where = with_stack(flash_attention=False)
    heads = [replace(DENSE, heads=16, kv_heads=16, head_dim=width) for width in (108, 112)]
    slow, fast = (replace(setting(model), stack=where.stack) for model in heads)
    assert estimate(slow, ONE).step.compute > 1.2 * estimate(fast, ONE).step.compute


def test_broadcasts_from_each_rank_add_up():
    """What a stack loses per rank that shards the states grows with their number."""
    few, many = (float(estimate(with_stack(rank_gap=1e-3), Degrees(n)).step.host) for n in (8, 16))
    assert many - few == pytest.approx(8e-3)


def test_softmax_apart_takes_more_launches_and_traffic():
    """Megatron's fused softmax takes heads · samples of a rank in fours: 3 heads need a micro-batch of 4."""
    shape = replace(DENSE, heads=12, kv_heads=12, head_dim=64)
    plain = replace(setting(shape), stack=with_stack(flash_attention=False, launch_cost=1.0, softmax_batch=0).stack)
    fours = replace(plain, stack=replace(plain.stack, softmax_batch=4))
    layer = fours.model.kinds[0]
    for micro_batch, apart in ((1, 1), (2, 1), (4, 0)):
        where = Degrees(4, tp=4, micro_batch=micro_batch)
        more = layer_time(layer, fours, where).total - layer_time(layer, plain, where).total
        assert more == pytest.approx(apart * UNFUSED_SOFTMAX * (1 + BACKWARD), rel=1e-2)
    batch = layer_time(layer, fours, Degrees(4, tp=4, micro_batch=np.array([1, 4]))).total
    assert batch.tolist() == [float(layer_time(layer, fours, Degrees(4, tp=4, micro_batch=n)).total) for n in (1, 4)]
    quick, slow = (replace(x, stack=replace(x.stack, launch_cost=0.0)) for x in (plain, fours))
    assert layer_time(layer, slow, Degrees(4, tp=4)).forward > layer_time(layer, quick, Degrees(4, tp=4)).forward


def test_an_unfused_loss_moves_what_the_stack_says():
    """Bytes a logit, whatever the other memory-bound work takes."""
    light, heavy = (with_stack(loss_traffic=each, launch_cost=0.0) for each in (16.0, 72.0))
    head = light.model.head
    more = layer_time(head, heavy, ONE).total - layer_time(head, light, ONE).total
    moved = 56.0 * light.workload.seq_len * light.model.head.parts[-1].width
    gpu = light.gpu
    assert more == pytest.approx(moved / (gpu.hbm_efficiency * gpu.hbm_bandwidth), rel=0.05)
