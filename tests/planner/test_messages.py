from dataclasses import replace

import pytest

from hwprofiles import load
from planner import catalog, stack
from planner.collectives.all_reduce import all_reduce
from planner.collectives.base import path
from planner.collectives.ring import all_gather, reduce_scatter
from planner.cost.communication import tensor_time
from planner.cost.groups import groups
from planner.cost.messages import Message, backward_messages, data_messages, forward_messages
from planner.memory.activations import part_activations
from planner.setting import Setting
from planner.sharding import held
from planner.strategy import Choices, Degrees, Workload

DEGREES = Degrees(10_240, tp=8, pp=16, cp=2, ep=8, etp=2)
TIMES = {"all_gather": all_gather, "reduce_scatter": reduce_scatter, "all_reduce": all_reduce}


def setting(name, **choices):
    """A catalogue model on 10,240 GPUs, without any overlap of tensor traffic."""
    cluster = load.cluster("h100-superpod", gpus=10_240)
    plain = replace(stack.load("megatron-core"), tensor_overlap=0.0)
    return Setting(catalog.load(name), cluster, Workload(4096, 1280, 1e9), Choices(**choices), plain)


@pytest.mark.parametrize("sequence_parallel", [True, False])
@pytest.mark.parametrize("name", ["llama3.1-8b", "deepseek-v3", "palm-540b", "snowflake-arctic", "minimax-text-01"])
def test_tensor_time_is_the_sum_of_its_messages(name, sequence_parallel):
    """The cost of tensor parallelism is what its messages take, one after the other."""
    found = setting(name, sequence_parallel=sequence_parallel)
    axes = groups(DEGREES, found.choices)
    ways = {"tp": path(axes.tp, found.layer_tiers), "etp": path(axes.etp, found.layer_tiers)}
    for layer in (*found.model.kinds, found.model.embedding, found.model.head):
        sent = (*forward_messages(layer, found, DEGREES), *backward_messages(layer, found, DEGREES))
        total = sum(TIMES[x.op](x.volume, ways[x.axis]) for x in sent if x.axis in ways)
        assert tensor_time(layer, found, DEGREES, 2.0) == pytest.approx(float(total), rel=1e-12)


def test_messages_of_one_mixture():
    """Gather, latents, scatter around MLA; dispatch and combine around the experts' slices; the shared expert's own."""
    found = setting("deepseek-v3")
    moe = found.model.kinds[1]
    rows = 4096 / 2 * 2.0  # tokens of a context rank, two bytes a value
    heads = 128 / 8 * (192 + 128)
    assert forward_messages(moe, found, DEGREES) == (
        Message("all_gather", "tp", rows * 1536),
        Message("all_gather", "tp", rows * (512 + 64)),
        Message("send", "cp", rows * heads),
        Message("reduce_scatter", "tp", rows * 7168),
        Message("all_to_all", "ep", rows / 8 * 8 * 7168),
        Message("all_gather", "etp", rows / 8 * 2 * 8 * 7168),
        Message("reduce_scatter", "etp", rows / 8 * 2 * 8 * 7168),
        Message("all_to_all", "ep", rows / 8 * 8 * 7168),
        Message("all_gather", "tp", rows * 7168),
        Message("reduce_scatter", "tp", rows * 7168),
    )
    back = backward_messages(moe, found, DEGREES)
    assert [x.op for x in back[:3]] == ["all_gather", "reduce_scatter", "all_to_all"]
    assert next(x for x in back if x.axis == "cp").volume == 2 * rows * heads


@pytest.mark.parametrize(("zero", "ops"), [(0, {"all_reduce"}), (1, {"reduce_scatter"}), (3, {"reduce_scatter"})])
def test_states_move_once(zero, ops):
    """Parameters are gathered in two bytes from ZeRO 1 on, gradients reduced in four; experts over their own axis."""
    found = setting("deepseek-v3", zero=zero)
    moe = found.model.kinds[1]
    has = held(moe, DEGREES)
    gathered, reduced = data_messages(moe, found, DEGREES)
    assert [x.volume for x in reduced] == [4 * has.dense, 4 * has.expert]
    assert {x.op for x in reduced} == ops
    assert [x.volume for x in gathered] == ([2 * has.dense, 2 * has.expert] if zero else [])
    assert data_messages(moe, found, Degrees(64, pp=64)) == ((), ())


def kept(name, kind, part_name, *, selective):
    """Bytes that one part keeps on one GPU."""
    found = setting(name)
    part = next(
        x for x in found.model.kinds[kind].parts if x.name == part_name and hasattr(x, "width") | hasattr(x, "inputs")
    )
    return part_activations(part, found, Degrees(8), selective=selective)


def test_two_norms_of_one_tensor_keep_it_once():
    """Arctic's residual block norms the tensor that the mixture's norm keeps, and keeps its own output."""
    assert kept("snowflake-arctic", 0, "ffn_norm", selective=False) == 4096 * 7168 * 2
    assert kept("snowflake-arctic", 0, "beside_norm", selective=False) == 0
    assert kept("snowflake-arctic", 0, "shared_up", selective=False) == 4096 * 7168 * 2
    assert kept("snowflake-arctic", 0, "shared_up", selective=True) == 0


def test_shared_keys_and_values_are_kept_by_their_owner():
    """A layer that takes the keys and values of the one before keeps its queries and row statistics alone."""
    found = setting("hunyuan-large")
    own, shared = (next(x for x in kind.parts if x.name == "core") for kind in found.model.kinds)
    sizes = [part_activations(core, found, Degrees(8), selective=False) for core in (own, shared)]
    assert sizes[0] - sizes[1] == 4096 * 2 * 8 * 80 * 2
