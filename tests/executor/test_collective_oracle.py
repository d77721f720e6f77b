import pytest

torch = pytest.importorskip("torch")

from executor.collective_oracle import WEIGHT_COLUMN, pipeline_sends, rank_messages  # noqa: E402
from hwprofiles import load  # noqa: E402
from planner import schedules, stack  # noqa: E402
from planner.cost.messages import Message, backward_messages, data_messages, forward_messages  # noqa: E402
from planner.setting import Setting  # noqa: E402
from planner.shape import Shape, build  # noqa: E402
from planner.strategy import Choices, Degrees, Workload  # noqa: E402

WORLD = 10_240
HIDDEN = 640  # like all widths here a multiple of tp and of the ranks that share a state, so that nothing is padded
SIZES = {"layers": 2, "hidden": HIDDEN, "vocab": 640, "heads": 8, "kv_heads": 8, "head_dim": 80, "ffn": 640}
MIXTURE = {"experts": 80, "topk": 2, "moe_ffn": 80, "first_dense": 1, "shared_experts": 1, "shared_ffn": 640}
LATENT = {"attention": "mla", "kv_heads": 0, "head_dim": 0, "q_rank": 80, "kv_rank": 80, "nope_dim": 80, "rope_dim": 80}
GLOBAL_BATCH = 16 * 80
MODELS = {
    "dense": Shape("dense", "test", **SIZES),
    "mixture": Shape("mixture", "test", **SIZES, **MIXTURE),
    "latent": Shape("latent", "test", **{**SIZES, **MIXTURE, **LATENT, "v_dim": 80}),
}


class Case:
    """Rank 0's messages of one plan, and the planner's."""

    def __init__(self, name, choices, **degrees):
        """The rank's messages are found at once."""
        model = build(MODELS[name])
        self.degrees = Degrees(WORLD, pp=16, **degrees)
        work = Workload(320 * int(self.degrees.cp), GLOBAL_BATCH, 1e9)  # the experts' choices come out even
        cluster = load.cluster("h100-superpod", gpus=WORLD)
        self.setting = Setting(model, cluster, work, choices, stack.load("megatron-core"))
        self.layers = (model.embedding, *(model.kinds[kind] for kind in model.order), model.head)
        self.forward, self.backward = rank_messages(model, self.degrees, choices, work, layers=range(2))

    def planned(self, axis):
        """(forward, backward) of one axis, all layers."""
        ahead = [x for layer in self.layers for x in forward_messages(layer, self.setting, self.degrees)]
        behind = [x for layer in self.layers[::-1] for x in backward_messages(layer, self.setting, self.degrees)]
        return [x for x in ahead if x.axis == axis], [x for x in behind if x.axis == axis]

    def seen(self, axis):
        """(forward, backward) of one axis, as it ran."""
        return [x for x in self.forward if x.axis == axis], [x for x in self.backward if x.axis == axis]

    def states(self):
        """(parameters gathered, gradients reduced) once each, as FSDP calls: embedding and head together, by layer."""
        each = [data_messages(layer, self.setting, self.degrees) for layer in self.layers]
        ends = [
            [Message(a.op, a.axis, a.volume + b.volume) for a, b in zip(first, last, strict=True)]
            for first, last in zip(each[0], each[-1], strict=True)
        ]
        return [
            [Message(x.op, x.axis, round(x.volume)) for x in (*ends[i], *(x for layer in each[1:-1] for x in layer[i]))]
            for i in range(2)
        ]


def on_data(messages):
    """Those of data parallelism, in no order: FSDP runs ahead."""
    return sorted((x for x in messages if x.axis in {"data", "expert_data"}), key=str)


def widened(message):
    """A message to the experts with the column of weights that the executor adds."""
    return Message(message.op, message.axis, message.volume * (HIDDEN + WEIGHT_COLUMN) / HIDDEN)


@pytest.mark.parametrize(
    ("name", "degrees"),
    [
        ("dense", {"tp": 8}),
        ("mixture", {"tp": 8, "ep": 16}),
        ("latent", {"tp": 8, "ep": 16}),
        ("mixture", {"tp": 8, "ep": 8, "etp": 2, "cp": 2}),
        ("dense", {"tp": 8, "cp": 4}),
    ],
)
def test_rank_0_of_10240_sends_what_the_planner_says(name, degrees):
    """Tensor, expert, context and ZeRO-3 messages of one micro-batch, call by call: operation, group, bytes, order."""
    case = Case(name, Choices(zero=3), **degrees)
    assert case.seen("tp") == case.planned("tp")
    for axis in ("ep", "etp"):
        ahead, behind = case.planned(axis)
        ahead = [widened(x) if i % 2 == 0 else x for i, x in enumerate(ahead)]
        behind = [widened(x) if i % 2 == 1 else x for i, x in enumerate(behind)]
        assert case.seen(axis) == (ahead, behind)
    check_ring(case)
    check_states(case)
    known = {"tp", "ep", "etp", "cp", "data", "expert_data"}
    assert {x.axis for x in (*case.forward, *case.backward)} <= known


def check_ring(case):
    """Keys and values pass as planned; their gradients in fp32, as a message of their own, and home at the end."""
    ahead, behind = case.seen("cp")
    planned, _ = case.planned("cp")
    assert ahead == planned
    steps = int(case.degrees.cp) - 1
    if steps:
        values, gradients = planned[0], Message("send", "cp", 2.0 * planned[0].volume)
        assert behind == ([values, gradients] * steps + [gradients]) * 2  # two layers


def check_states(case):
    """ZeRO-3 gathers every unit forward and backward and scatters its gradients once."""
    gathered, reduced = case.states()
    assert on_data(case.forward) == on_data(gathered)
    assert on_data(case.backward) == on_data([*gathered, *reduced])


def test_without_sequence_parallelism():
    """All-reduces in place of gathers and scatters: out of row cuts forward, into column cuts backward."""
    case = Case("mixture", Choices(zero=3, sequence_parallel=False), tp=8)
    assert case.seen("tp") == case.planned("tp")
    assert {x.op for x in case.seen("tp")[0]} == {"all_reduce"}


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_other_stages_of_zero_move_the_same_states(zero):
    """One gather of the parameters (from ZeRO 1 on) and one reduction of the gradients a micro-batch, by unit."""
    case = Case("mixture", Choices(zero=zero), tp=8, ep=16)
    gathered, reduced = case.states()
    assert on_data(case.forward) == on_data(gathered)
    assert on_data(case.backward) == on_data(reduced)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_pipelines_send_what_the_schedule_says(name):
    """The busiest rank's messages in each direction by torch's action list equal the schedule's closed form."""
    schedule = schedules.get(name)
    vpp = 1 if not schedule.broken(4, 1, 8) else 2
    found = pipeline_sends(name, 4, vpp, 8)
    for direction in ("forward", "backward"):
        assert max(each[direction] for each in found) == schedule.sends(4, vpp, 8)


def test_a_running_group_is_left_alone():
    """The oracle refuses to take the place of a process group that is running."""
    torch.distributed.init_process_group("fake", store=torch.distributed.HashStore(), rank=0, world_size=2)
    try:
        with pytest.raises(ValueError, match="running already"):
            rank_messages(build(MODELS["dense"]), Degrees(2), Choices(), Workload(8, 2, 1e9), layers=range(1))
    finally:
        torch.distributed.destroy_process_group()
