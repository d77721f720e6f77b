"""What the planner claims of compression is what the executor stores and counts, byte for byte and FLOP for FLOP."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch import nn  # noqa: E402

from executor.export import Facts, export  # noqa: E402
from executor.flops import counter  # noqa: E402
from executor.methods import codecs, experts  # noqa: E402
from executor.methods.prune import Pruner  # noqa: E402
from executor.methods.settings import Prune  # noqa: E402
from executor.methods.targets import chosen, pieces  # noqa: E402
from executor.methods.work import executed  # noqa: E402
from executor.model import build  # noqa: E402
from executor.model_file import model_toml  # noqa: E402
from planner.compression import get  # noqa: E402
from planner.layers.base import Core, Linear  # noqa: E402
from planner.model import core_flops  # noqa: E402
from planner.precision import FP32, LOW_PRECISION  # noqa: E402
from tests.executor.grid import model  # noqa: E402

FACTS = Facts("language-model", "bytes", (32,))
FORMS = {
    "none": "fp32", "int8": "int8", "int8-dynamic": "int8-dynamic", "int4": "int4", "fp8": "fp8", "2:4": "2:4",
    "unstructured:0.5": "sparse",
}  # fmt: skip
SHAPES = ("dense", "moe", "tied", "windows", "biased")


def pruned(made, how):
    """A model pruned at once."""
    module = build(made, seed=1)
    Pruner(chosen(pieces(module)), how).after_step(0)
    return module


def as_planned(made, method):
    """The model as the method leaves it."""
    if method == "2:4":
        return pruned(made, Prune("2:4", start=0))
    if method.startswith("unstructured"):
        return pruned(made, Prune(scope="matrix", start=0))
    return build(made, seed=1)


def split(made):
    """Matrices that the executor keeps apart and the planner counts as one (q, k and v; up and gate)."""
    stored = sum(len(value) if value.dim() == 3 else 1 for value in matrices(made).values())
    parts = (part for layer in made.stack() for part in layer.parts if isinstance(part, Linear))
    return stored - sum(part.copies for part in parts if part.label in LOW_PRECISION)


def matrices(made):
    """The weights that are compressed, by name."""
    return {each.name: each.parameter for each in chosen(pieces(build(made)))}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", FORMS)
def test_stored_bytes_are_those_of_the_planner(shape, method, tmp_path):
    """The exported tensors take what `planner.compression` says; one more fp8 scale for each matrix kept apart."""
    made = model(shape)
    state = dict(as_planned(made, method).named_parameters())
    manifest = export(tmp_path, model_toml(made), state, FACTS, form=FORMS[method])
    expected = get(method).stored_bytes(made, value=FP32) + (4 * split(made) if method == "fp8" else 0)
    assert manifest["stored_bytes"] == expected


@pytest.mark.parametrize("method", ["int8", "int4", "fp8", "2:4"])
def test_a_kernel_is_a_matrix_of_the_planner(method):
    """A convolution of 3² takes the bytes of a matrix of channels · 9 inputs."""
    value = nn.Conv2d(8, 12, 3).weight.detach()
    if method == "2:4":
        module = nn.Sequential(nn.Conv2d(8, 12, 3))
        Pruner(chosen(pieces(module)), Prune("2:4", start=0)).after_step(0)
        value = module[0].weight.detach()
    assert codecs.stored_bytes(codecs.encode(value, method)) == get(method).matrix_bytes(12, 8 * 9, FP32)


@pytest.mark.parametrize("keep", [2, 5])
def test_a_model_with_fewer_experts_is_the_planner_s(keep, tmp_path):
    """The model that is left, and its bytes, are those of the planner's expert pruning."""
    made = model("moe")
    module = build(made, seed=1)
    loads = experts.routed(module, [torch.randint(0, 64, (4, 32))])
    smaller, state = experts.drop(made, dict(module.state_dict()), loads, keep)
    assert smaller == get(f"experts:{keep}").changed(made)
    manifest = export(tmp_path, model_toml(smaller), state, FACTS)
    assert manifest["stored_bytes"] == get(f"experts:{keep}").stored_bytes(made, value=FP32)


@pytest.mark.parametrize(
    ("shape", "method"), [("dense", "2:4"), ("tied", "2:4"), ("moe", "2:4-experts"), ("biased", "2:4-experts")]
)
def test_counted_flop_are_those_of_the_planner(shape, method):
    """Products without the pruned half: the planner's count a token; dense, they are torch's own count."""
    made, ids = model(shape), torch.randint(0, 64, (2, 32))
    layers = [part for layer in made.stack() for part in layer.parts]
    for name, module in ((method, pruned(made, Prune("2:4", start=0))), ("none", build(made, seed=1))):
        assert executed(module, ids) == ids.numel() * sum(get(name).forward_flops(part) for part in layers)
    with counter() as counted, torch.no_grad():
        module(ids)
    cores = sum(core_flops(part, 32, causal=False) for part in layers if isinstance(part, Core))
    assert counted.get_total_flops() == executed(module, ids) + ids.numel() * cores
