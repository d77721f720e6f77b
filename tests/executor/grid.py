"""The plans whose loss and gradients must equal those of one process: data for the tests of numerics."""

from dataclasses import dataclass, field
from functools import cache

from executor.check import Measured, measure, random_tokens
from executor.parallel import Options
from executor.parallel.expert import Slots
from executor.trainer import Trainer
from planner.model import Model
from planner.shape import Shape, build
from planner.strategy import ORDERS, Choices, Degrees, Workload

WORKLOAD = Workload(seq_len=32, global_batch=8, tokens=1e6)
_SIZES = {"family": "test", "layers": 4, "hidden": 32, "vocab": 64, "heads": 4, "ffn": 64}
_EXPERTS = {"experts": 8, "topk": 2, "moe_ffn": 32}
SHAPES = {
    shape.name: shape
    for shape in (
        Shape("dense", **_SIZES, kv_heads=2),
        Shape("moe", **_SIZES, **_EXPERTS, kv_heads=2, shared_experts=1, first_dense=1),
        Shape(
            "latent",
            **{**_SIZES, "family": "deepseek"},
            **_EXPERTS,
            attention="mla",
            q_rank=16,
            kv_rank=8,
            nope_dim=8,
            rope_dim=4,
            v_dim=8,
            shared_experts=1,
            first_dense=1,
            mtp_layers=1,
        ),
        Shape(
            "tied",
            **_SIZES,
            tied=True,
            gated=False,
            norm="layer",
            qkv_bias=True,
            out_bias=True,
            ffn_bias=True,
            positions=32,
        ),
        Shape("windows", **_SIZES, kv_heads=2, reaches=("window", "full"), window=8, sinks=True, qk_norm="full"),
        Shape("linear", **_SIZES, reaches=("linear", "full"), norm_places="sandwich"),
        Shape("one_key", **_SIZES, kv_heads=1, qk_norm="head", reaches=("full", "shared_kv"), norm_places="parallel"),
        Shape("biased", **_SIZES, **_EXPERTS, expert_bias=True, router_bias=True, shared_experts=1, shared_gate=True),
    )
}
REPLICATED = Slots(
    expert=(0, 1, 2, 3, 4, 5, 6, 7, 0, 3),
    rank=(1, 0, 1, 0, 0, 1, 0, 1, 0, 1),
    share=(0.4, 1.0, 1.0, 0.75, 1.0, 1.0, 1.0, 1.0, 0.6, 0.25),
)


@dataclass(frozen=True)
class Row:
    """A plan on `ranks` ranks: axes, choices and options where they differ from one process in fp32, ZeRO 0."""

    name: str
    shape: str
    ranks: int
    axes: dict[str, int] = field(default_factory=dict)
    choices: dict[str, object] = field(default_factory=dict)
    options: Options = field(default_factory=Options)

    @property
    def degrees(self) -> Degrees:
        """The degrees."""
        return Degrees(self.ranks, **self.axes)

    @property
    def chosen(self) -> Choices:
        """The choices."""
        return Choices(**{"precision": "fp32", "zero": 0, **self.choices})


def _row(name: str, shape: str, ranks: int, options: Options | None = None, **settings: object) -> Row:
    axes = {"micro_batch": 2} | {key: value for key, value in settings.items() if key in Degrees.__dataclass_fields__}
    choices = {key: value for key, value in settings.items() if key not in axes}
    return Row(name, shape, ranks, axes, choices, options or Options())


AXES = (
    _row("one", "dense", 1),
    _row("one-moe", "moe", 1, recompute="selective"),
    _row("single", "dense", 1, micro_batch=1),
    _row("accumulated", "dense", 1, micro_batch=4),
    _row("recompute-full", "dense", 1, recompute="full"),
    _row("recompute-selective", "dense", 1, recompute="selective"),
    *(_row(f"zero{zero}", "dense", 2, zero=zero) for zero in range(4)),
    _row("hybrid-shards", "dense", 4, zero=3, replicas=2),
    _row("tp", "dense", 2, tp=2),
    _row("tp-whole-tokens", "tied", 2, tp=2, sequence_parallel=False),
    _row("tp4", "one_key", 4, tp=4),
    _row("1f1b", "dense", 2, pp=2),
    _row("pp4", "dense", 4, pp=4),
    _row("gpipe", "dense", 2, pp=2, schedule="gpipe"),
    _row("interleaved", "dense", 2, pp=2, vpp=2, schedule="interleaved"),
    _row("zb-h1", "dense", 2, pp=2, schedule="zb-h1"),
    _row("ring", "dense", 2, cp=2),
    _row("ring4", "dense", 4, cp=4),
    _row("all-gather", "dense", 2, Options("all_gather"), cp=2),
    _row("ulysses", "dense", 2, Options("ulysses"), cp=2),
    _row("ep", "moe", 2, ep=2),
    _row("ep4", "moe", 4, ep=4),
    _row("etp", "biased", 2, tp=2, etp=2),
)
PAIRS = (
    _row("dp-tp", "dense", 4, tp=2, zero=3),
    _row("dp-pp", "dense", 4, pp=2, zero=1, schedule="zb-h1"),
    _row("dp-pp-full", "dense", 4, pp=2, zero=3, schedule="zb-h1", recompute="full"),
    _row("dp-pp-order", "dense", 4, pp=2, order=ORDERS[1]),
    _row("dp-cp", "dense", 4, cp=2, zero=2),
    _row("dp-ep", "moe", 4, ep=2, zero=2),
    _row("dp-ep-zero3", "moe", 4, ep=2, zero=3, recompute="selective"),
    _row("tp-pp", "dense", 4, tp=2, pp=2, schedule="zb-h1"),
    _row("tp-cp", "dense", 4, tp=2, cp=2, recompute="selective"),
    _row("tp-ep", "moe", 4, tp=2, ep=4, zero=1, micro_batch=4),
    _row("tp-etp", "moe", 4, tp=2, ep=2, etp=2),
    _row("pp-cp", "dense", 4, pp=2, cp=2),
    _row("pp-ep", "moe", 4, pp=2, ep=2, zero=1, schedule="zb-h1"),
    _row("cp-ep", "moe", 4, cp=2, ep=4),
    _row("vpp-dp", "dense", 4, pp=2, vpp=2, schedule="interleaved", zero=2, recompute="full"),
)
KINDS = (
    _row("tied-pp", "tied", 2, pp=2, schedule="zb-h1"),
    _row("tied-tp-cp", "tied", 4, tp=2, cp=2, zero=1),
    _row("latent-pp-ep", "latent", 4, pp=2, ep=2, zero=1, recompute="full"),
    _row("latent-tp-cp", "latent", 4, tp=2, cp=2, ep=2, zero=2),
    _row("windows-tp-cp", "windows", 4, tp=2, cp=2),
    _row("linear-cp", "linear", 4, tp=2, cp=2, zero=1),
    _row("linear-pp", "linear", 2, pp=2, schedule="zb-h1", recompute="selective"),
    _row("shared-keys", "one_key", 4, tp=2, cp=2, recompute="full"),
    _row("biased-experts", "biased", 4, tp=2, ep=2, etp=2, zero=3),
    _row("placement", "moe", 2, Options(placement={1: REPLICATED, 3: REPLICATED}), ep=2),
    _row(
        "placement-large",
        "moe",
        4,
        Options(placement={2: REPLICATED}),
        pp=2,
        ep=2,
        zero=1,
        recompute="full",
        schedule="zb-h1",
    ),
)
LARGE = (
    _row("8-tp-pp-dp", "dense", 8, tp=2, pp=2, zero=1, schedule="zb-h1"),
    _row("8-tp-pp-cp", "dense", 8, tp=2, pp=2, cp=2, micro_batch=4, recompute="full"),
    _row("8-vpp-tp-ep", "moe", 8, tp=2, pp=2, vpp=2, ep=2, zero=1, schedule="interleaved"),
    _row("8-cp-ep-hybrid", "moe", 8, cp=2, ep=2, zero=3, replicas=2),
    _row("8-tp-cp-etp", "moe", 8, tp=2, cp=2, ep=2, etp=2, micro_batch=4, zero=3, recompute="full"),
    _row("8-latent", "latent", 8, tp=2, pp=2, cp=2, ep=2, etp=2, micro_batch=4, zero=1),
    _row(
        "8-tp-pp-cp-ep",
        "moe",
        8,
        tp=2,
        pp=2,
        cp=2,
        ep=4,
        micro_batch=4,
        zero=2,
        schedule="zb-h1",
        recompute="selective",
    ),
)
GRID = (*AXES, *PAIRS, *KINDS, *LARGE)


@cache
def model(shape: str) -> Model:
    """The model of a shape."""
    return build(SHAPES[shape])


def gradients(row: Row) -> Measured | None:
    """What a rank of the plan measures in one step."""
    return measure(model(row.shape), row.degrees, row.chosen, WORKLOAD, 0, row.options)


def curve(row: Row, optimizer: str, steps: int) -> list[tuple[float, float]]:
    """Loss and gradient norm of each of some steps of training, on new random tokens each."""
    chosen = Choices(**{**vars(row.chosen), "optimizer": optimizer})
    trainer = Trainer(model(row.shape), row.degrees, chosen, WORKLOAD, lr=1e-2, options=row.options)
    found = []
    for step in range(steps):
        tokens = random_tokens(trainer.model, WORKLOAD, step)
        found.append((trainer.step(tokens[list(trainer.rows)]), trainer.norm))
    return found


def half(row: Row) -> Measured | None:
    """`gradients` in bf16."""
    chosen = Choices(**{**vars(row.chosen), "precision": "bf16"})
    return measure(model(row.shape), row.degrees, chosen, WORKLOAD, 0, row.options)
