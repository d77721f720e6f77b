"""The small trainings that a calibration is fitted on, and those that it must predict without having seen them.

Whole families are held out: a depth, a number of experts, grouped and latent attention, a length, the schedules GPipe
and interleaved, ZeRO 0 and 3, and most pairs of axes. What is fitted shows each mechanism at least once. Most have more
weights and activations than a core's caches hold; the small ones, as large as what `plan run` trains by default, are
nearly all host work, which large steps alone can't tell from memory traffic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwprofiles import load
from planner import stack
from planner.plan import Plan
from planner.setting import Setting
from planner.shape import Shape, build
from planner.strategy import Choices, Degrees, Workload

CLUSTER, STACK = "cpu-loopback", "torch-eager"
DENSE = Shape("dense", "proxy", layers=4, hidden=384, vocab=512, heads=6, ffn=1024)
WIDE = replace(DENSE, name="wide", layers=2, hidden=640, heads=10, ffn=1792)
GROUPED = replace(DENSE, name="grouped", kv_heads=2, hidden=512, heads=8, ffn=1408, tied=True)
DEEP = replace(DENSE, name="deep", layers=12, hidden=256, heads=4, ffn=704)
MOE = replace(
    DENSE, name="moe", hidden=256, heads=4, ffn=768, experts=8, topk=2, moe_ffn=384, first_dense=1, shared_experts=1
)
MOE_WIDE = replace(MOE, name="moe-wide", layers=3, hidden=384, heads=6, moe_ffn=512)
MANY = replace(MOE, name="many", layers=6, experts=16, topk=4, moe_ffn=192)
SMALL = replace(DENSE, name="small", hidden=64, heads=4, ffn=192, vocab=256)
SMALL_MOE = replace(MOE, name="small-moe", hidden=64, heads=4, ffn=192, moe_ffn=64, vocab=256)
LATENT = replace(MOE, name="latent", attention="mla", q_rank=128, kv_rank=96, nope_dim=48, rope_dim=16, v_dim=48)


@dataclass(frozen=True)
class Proxy:
    """A training of some seconds: `model`, `degrees`, `choices`, sequence, batch; whether the fit may see it."""

    name: str
    model: Shape
    degrees: Degrees
    fitted: bool
    choices: Choices
    seq_len: int = 256
    global_batch: int = 4

    @property
    def ranks(self) -> int:
        """Processes that it needs."""
        return int(self.degrees.world)

    def plan(self) -> Plan:
        """The plan on the uncalibrated profile of this machine."""
        cluster = load.cluster(CLUSTER, max(self.ranks, 1))
        workload = Workload(self.seq_len, self.global_batch, float(self.seq_len * self.global_batch))
        setting = Setting(build(self.model), cluster, workload, self.choices, stack.load(STACK))
        return Plan(self.model.name, CLUSTER, setting, self.degrees)


def _proxy(
    name: str, model: Shape, world: int, *, fitted: bool, seq_len: int = 256, batch: int = 4, **how: object
) -> Proxy:
    """A proxy whose degrees and choices are keywords, such as tp=2 and schedule="gpipe"."""
    degrees = {key: value for key, value in how.items() if key in Degrees.__dataclass_fields__}
    chosen = {key: value for key, value in how.items() if key in Choices.__dataclass_fields__}
    choices = Choices(**{"precision": "fp32", "zero": 0, **chosen})  # type: ignore[arg-type]
    return Proxy(name, model, Degrees(world, **degrees), fitted, choices, seq_len, batch)  # type: ignore[arg-type]


PROXIES: tuple[Proxy, ...] = (
    # one rank: shapes of layers, recompute, micro-batches
    _proxy("1 dense", DENSE, 1, fitted=True),
    _proxy("1 dense, micro-batch 2", DENSE, 1, fitted=True, micro_batch=2, seq_len=128),
    _proxy("1 wide", WIDE, 1, fitted=True, seq_len=128),
    _proxy("1 moe", MOE, 1, fitted=True),
    _proxy("1 moe, wide", MOE_WIDE, 1, fitted=True, seq_len=128),
    _proxy("1 dense, full recompute", DENSE, 1, fitted=True, recompute="full", batch=2),
    _proxy("1 small", SMALL, 1, fitted=True, seq_len=64),
    _proxy("1 small moe", SMALL_MOE, 1, fitted=True, seq_len=64),
    _proxy("1 small, micro-batch 4", SMALL, 1, fitted=False, micro_batch=4, seq_len=64),
    _proxy("1 deep", DEEP, 1, fitted=False, batch=2),
    _proxy("1 grouped, tied", GROUPED, 1, fitted=False, seq_len=128, micro_batch=2),
    _proxy("1 many experts", MANY, 1, fitted=False, batch=2),
    _proxy("1 latent moe", LATENT, 1, fitted=False),
    _proxy("1 dense, 512 tokens", DENSE, 1, fitted=False, seq_len=512, batch=2),
    _proxy("1 deep, full recompute", DEEP, 1, fitted=False, recompute="full", batch=2),
    # two ranks: each axis alone
    _proxy("2 tp", DENSE, 2, fitted=True, tp=2),
    _proxy("2 dp, zero 1", DENSE, 2, fitted=True, zero=1),
    _proxy("2 pp, 1f1b", DENSE, 2, fitted=True, pp=2, seq_len=128),
    _proxy("2 cp", DENSE, 2, fitted=True, cp=2),
    _proxy("2 ep, zero 1", MOE, 2, fitted=True, ep=2, zero=1),
    _proxy("2 dp, zero 2", DENSE, 2, fitted=True, zero=2),
    _proxy("2 small, pp", SMALL, 2, fitted=True, pp=2, seq_len=64),
    _proxy("2 small, dp x ep, zero 1", SMALL_MOE, 2, fitted=True, ep=2, zero=1, seq_len=64),
    _proxy("2 small, pp, zb-h1", SMALL, 2, fitted=False, pp=2, schedule="zb-h1", seq_len=64),
    _proxy("2 pp, gpipe", DENSE, 2, fitted=False, pp=2, schedule="gpipe", seq_len=128),
    _proxy("2 pp, interleaved", DENSE, 2, fitted=False, pp=2, vpp=2, schedule="interleaved", seq_len=128),
    _proxy("2 pp, zb-h1", DENSE, 2, fitted=True, pp=2, schedule="zb-h1", seq_len=128),
    _proxy("2 dp, zero 0", DENSE, 2, fitted=False, zero=0),
    _proxy("2 dp, zero 3", DENSE, 2, fitted=False, zero=3),
    _proxy("2 tp, deep, full recompute", DEEP, 2, fitted=False, tp=2, recompute="full", batch=2),
    _proxy("2 pp, many experts", MANY, 2, fitted=False, pp=2, seq_len=128),
    # four ranks: one axis of four, then pairs of axes
    _proxy("4 dp, zero 1", DENSE, 4, fitted=True, zero=1, batch=8),
    _proxy("4 tp", replace(DENSE, name="eight", heads=8, hidden=512), 4, fitted=True, tp=4, batch=2),
    _proxy("4 tp x dp, zero 1", DENSE, 4, fitted=True, tp=2, zero=1, batch=8),
    _proxy("4 ep, zero 1", MOE, 4, fitted=True, ep=4, zero=1, batch=8),
    _proxy("4 pp, 1f1b", DENSE, 4, fitted=True, pp=4, seq_len=128, batch=8),
    _proxy("4 dp x cp, zero 1", DENSE, 4, fitted=True, cp=2, zero=1),
    _proxy("4 pp, zb-h1", DEEP, 4, fitted=False, pp=4, schedule="zb-h1", seq_len=128, batch=8),
    _proxy("4 tp x pp, 1f1b", DENSE, 4, fitted=False, tp=2, pp=2),
    _proxy("4 pp x dp, gpipe, zero 1", DENSE, 4, fitted=False, pp=2, schedule="gpipe", zero=1, seq_len=128, batch=8),
    _proxy("4 pp x cp, interleaved", DENSE, 4, fitted=False, pp=2, vpp=2, cp=2, schedule="interleaved"),
    _proxy("4 tp x cp", DENSE, 4, fitted=False, tp=2, cp=2),
    _proxy("4 pp x ep, zero 1", MANY, 4, fitted=False, pp=2, ep=2, zero=1, seq_len=128, batch=8),
    _proxy(
        "4 small, pp x ep, interleaved, zero 1",
        SMALL_MOE,
        4,
        fitted=False,
        pp=2,
        vpp=2,
        ep=2,
        schedule="interleaved",
        zero=1,
        seq_len=64,
    ),
    _proxy("4 dp x ep, zero 2", MOE, 4, fitted=False, ep=2, zero=2, batch=8),
)
QUICK = frozenset(
    {
        "1 small",
        "1 small moe",
        "1 dense, micro-batch 2",
        "1 wide",
        "1 moe, wide",
        "1 dense, full recompute",
        "1 deep",
        "1 many experts",
        "2 tp",
        "2 dp, zero 1",
        "2 pp, 1f1b",
        "2 ep, zero 1",
        "2 small, pp",
        "2 small, pp, zb-h1",
        "2 pp, gpipe",
        "2 dp, zero 3",
    }
)


def chosen(ranks: int, *, quick: bool) -> list[Proxy]:
    """The proxies that `ranks` processes can run."""
    return [proxy for proxy in PROXIES if proxy.ranks <= ranks and (not quick or proxy.name in QUICK)]
