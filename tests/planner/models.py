"""Small models, settings and plans that the tests of the planner share."""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np

from hwprofiles import load
from planner import residual_network, stack
from planner.divisibility import divisors
from planner.model import Model
from planner.residual_network import ResidualNetwork
from planner.rules import Case, rules
from planner.setting import Setting
from planner.shape import Shape, build
from planner.strategy import Choices, Degrees, Workload

DENSE = Shape("dense", "test", layers=6, hidden=512, vocab=4096, heads=8, kv_heads=4, ffn=2048)
MOE = Shape(
    "moe",
    "test",
    layers=7,
    hidden=512,
    vocab=4096,
    heads=8,
    ffn=2048,
    experts=8,
    topk=2,
    moe_ffn=512,
    shared_experts=1,
    first_dense=1,
)
LATENT = Shape(
    "latent",
    "test",
    layers=9,
    hidden=512,
    vocab=4096,
    heads=8,
    ffn=2048,
    attention="mla",
    q_rank=192,
    kv_rank=128,
    nope_dim=32,
    rope_dim=16,
    v_dim=32,
    experts=8,
    topk=4,
    moe_ffn=256,
    first_dense=2,
    mtp_layers=1,
)
TIED = replace(DENSE, name="tied", tied=True, gated=False, norm="layer", qkv_bias=True, out_bias=True, ffn_bias=True)
SMALL = (DENSE, MOE, LATENT, TIED)
KIMI_K2 = Shape(
    "kimi-k2",
    "kimi_k2",
    layers=61,
    hidden=7168,
    vocab=163840,
    heads=64,
    ffn=18432,
    attention="mla",
    q_rank=1536,
    kv_rank=512,
    nope_dim=128,
    rope_dim=64,
    v_dim=128,
    experts=384,
    topk=8,
    moe_ffn=2048,
    shared_experts=1,
    first_dense=1,
)
LLAMA_405B = Shape("llama-3.1-405b", "llama", layers=126, hidden=16384, vocab=128256, heads=128, kv_heads=8, ffn=53248)
GPT_22B = Shape(
    "gpt-22b", "gpt", layers=48, hidden=6144, vocab=51200, heads=64, ffn=4 * 6144, gated=False, norm="layer", tied=True
)


PICTURES = Shape(
    "pictures",
    "test",
    layers=8,
    hidden=1024,
    vocab=0,
    heads=16,
    ffn=4096,
    gated=False,
    norm="layer",
    causal=False,
    rotary=False,
    predicts="classes",
    classes=10,
    image=224,
    patch=16,
)
CONVOLUTIONAL = ResidualNetwork("convolutional", 64, widths=(64, 128), depths=(2, 2), classes=10)


@cache
def model(shape: Shape | ResidualNetwork) -> Model:
    """The built model of a shape."""
    return build(shape) if isinstance(shape, Shape) else residual_network.build(shape)


def setting(
    shape: Shape | ResidualNetwork,
    gpus: int = 16,
    choices: Choices = Choices(),  # noqa: B008 (frozen)
    workload: Workload = Workload(2048, 64, 1e9),  # noqa: B008 (frozen)
    cluster: str = "h100-superpod",
    stack_name: str = "megatron-core",
) -> Setting:
    """A setting on part of a catalogue cluster."""
    return Setting(model(shape), load.cluster(cluster, gpus=gpus), workload, choices, stack.load(stack_name))


def case(where: Setting, degrees: Degrees) -> Case:
    """The degrees in the surroundings of a setting."""
    return Case(where.model, where.cluster, where.workload, where.choices, degrees)


def grid(world: int, **values: tuple[int, ...]) -> Degrees:
    """Every combination of the given values, legal or not, as arrays."""
    rows = np.array(list(product(*values.values())), dtype=np.int64).reshape(-1, len(values))
    columns = {name: rows[:, index] for index, name in enumerate(values)}
    return Degrees(world=np.full(len(rows), world), **columns)


@cache
def _legal(shape: Shape, gpus: int, choices: Choices, workload: Workload) -> Degrees:
    where = setting(shape, gpus, choices, workload)
    ways = tuple(divisors(gpus))
    experts = tuple(x for x in ways if x <= max(shape.experts, 1))
    every = grid(
        gpus,
        tp=tuple(x for x in ways if x <= 8),
        pp=tuple(x for x in ways if x <= 8),
        vpp=(1, 2, 3),
        cp=tuple(x for x in ways if x <= 4),
        ep=experts,
        etp=(1, 2) if shape.experts else (1,),
        micro_batch=(1, 2),
        replicas=(1, 2),
    )
    kept = np.ones(np.size(every.tp), dtype=bool)
    for rule in rules(choices):
        kept &= np.broadcast_to(rule.holds(case(where, every)), kept.shape)
    return every.take(np.flatnonzero(kept))


def legal(shape: Shape, where: Setting) -> Degrees:
    """All legal degrees of a small grid in a setting, by the rules as masks."""
    rows = _legal(shape, where.cluster.gpus, replace(where.choices, recompute="none"), where.workload)
    assert np.size(rows.tp), "the grid of the tests must hold legal plans"
    return rows
