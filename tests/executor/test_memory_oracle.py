import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.distributed._tools.mem_tracker import MemTracker, _MemRefType  # noqa: E402

from executor.layers.base import Spec  # noqa: E402
from executor.layers.block import Block  # noqa: E402
from executor.layers.rebuild import apply_selective  # noqa: E402
from executor.layers.router import Routing  # noqa: E402
from executor.memory_oracle import kept_bytes, planned_bytes  # noqa: E402
from hwprofiles import load  # noqa: E402
from planner import catalog, stack  # noqa: E402
from planner.setting import Setting  # noqa: E402
from planner.strategy import Choices, Degrees, Workload  # noqa: E402

SEQ_LEN = 512
WITHIN = 0.03


def setting(model, recompute):
    """One rank that trains with fused attention in bf16."""
    workload = Workload(SEQ_LEN, 8, 1e9)
    cluster = load.cluster("h100-superpod", gpus=8)
    return Setting(model, cluster, workload, Choices(recompute=recompute), stack.load("megatron-core"))


@pytest.mark.parametrize("recompute", ["none", "selective"])
@pytest.mark.parametrize("name", catalog.names())
def test_layers_keep_what_the_planner_says(name, recompute):
    """Every kind of layer of every catalogue model within 3 %, in total and for each place that holds a tenth of it."""
    model = catalog.load(name)
    for layer in model.kinds:
        kept = kept_bytes(layer, 1, SEQ_LEN, recompute)
        planned = planned_bytes(layer, setting(model, recompute), Degrees(1))
        assert kept.total() == pytest.approx(planned.total(), rel=WITHIN), layer.name
        for place, size in planned.items():
            if size > 0.1 * planned.total():
                assert kept[place] == pytest.approx(size, rel=WITHIN), (layer.name, place)


@pytest.mark.parametrize("name", ["llama3.1-8b", "deepseek-v2-lite", "gpt-oss-20b", "minimax-text-01"])
def test_full_recompute_keeps_the_input(name):
    """A checkpointed layer keeps its input to the byte."""
    model = catalog.load(name)
    for layer in model.kinds:
        assert kept_bytes(layer, 1, SEQ_LEN, "full") == planned_bytes(layer, setting(model, "full"), Degrees(1))


@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_torch_tracks_the_same_bytes(recompute):
    """torch's own memory tracker finds the same activations alive after the forward pass, to the byte."""
    layer = catalog.load("llama3.1-8b").kinds[0]
    with FakeTensorMode():
        block = Block(Spec(layer.parts), Routing())
        for parameter in block.parameters():
            parameter.data = parameter.data.bfloat16()
        if recompute == "selective":
            apply_selective(block)
        leaf = torch.empty(1, SEQ_LEN, 4096, dtype=torch.bfloat16, requires_grad=True)
        positions = torch.arange(SEQ_LEN)
        tracker = MemTracker()
        tracker.track_external(block, leaf, positions)
        with tracker:
            out = block(leaf * 1.0, positions)
            found = tracker.get_tracker_snapshot("current")[torch.device("cpu")][_MemRefType.ACT]
    assert found == kept_bytes(layer, 1, SEQ_LEN, recompute).total() + out.untyped_storage().nbytes()
