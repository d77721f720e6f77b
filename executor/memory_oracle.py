"""What one decoder layer really keeps for its backward pass: the storages that outlive a forward pass on fake tensors.

The oracle of `planner.memory.activations`: the twin runs in bf16 with production's fused work (executor.layers.fused),
and every storage that autograd still holds afterwards counts once, under the place that made it. The layer's output is
the next layer's input and counts there.

What the twin keeps and the planner leaves out, about 1 % in the smallest catalogue model and less in the others: cos
and sin of the rotation, one number a row of each norm, the router's choices as int64 and their weights. What the
planner counts and the twin doesn't keep: row statistics of linear attention, which has none.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.module_tracker import ModuleTracker

from executor.layers.base import Spec
from executor.layers.block import NORMS, Block
from executor.layers.convolution import ResidualBlock
from executor.layers.rebuild import apply_selective
from executor.layers.router import Routing
from planner.layers.base import Core, Linear, Part, Pointwise
from planner.memory.activations import layer_activations, part_activations
from planner.model import Layer
from planner.setting import Setting
from planner.strategy import Degrees

PLACES = ("stream", "normed", "attention", "router", "experts", "shared", "dense")
"""Where kept bytes stand: the residual stream, outputs of the norms on it, and inside each block."""
READ_NORMED = frozenset({"qkv", "q", "q_down", "up", "router", "shared_up"})
"""Matrices whose input is the output of a norm on the residual stream."""
BEHIND = {"post_attention_norm": "attention", "post_ffn_norm": "ffn"}
"""Norms whose input is the output of a block."""


class _Made(TorchDispatchMode):
    """Notes every storage that an operator makes, with the module in which it was made."""

    def __init__(self, tracker: ModuleTracker, root: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tracker, self._root = tracker, root
        self._made: dict[int, tuple[StorageWeakRef, int, str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {_identity(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and _identity(tensor) not in given:
                storage = tensor.untyped_storage()
                place = max(self._tracker.parents - {"Global"}, key=len, default="")
                entry = (StorageWeakRef(storage), storage.nbytes(), place.removeprefix(self._root).strip("."))
                self._made.setdefault(_identity(tensor), entry)
        return out

    def alive(self) -> Counter[str]:
        """Bytes of the storages still alive, by the module that made them."""
        found: Counter[str] = Counter()
        for storage, size, place in self._made.values():
            if not storage.expired():
                found[place] += size
        return found


def _identity(tensor: Tensor) -> int:
    """The same for all views of one storage, as long as someone refers to it."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 (no public name)


def kept_bytes(layer: Layer, batch: int, seq_len: int, recompute: str) -> Counter[str]:
    """Bytes that the twin of `layer` keeps of `batch` sequences in bf16, by place."""
    if layer.takes:
        return _kept_of_images(layer, batch)
    spec = Spec(layer.parts)
    tracker = ModuleTracker()
    with FakeTensorMode(), tracker:
        block = Block(spec, Routing())
        for parameter in block.parameters():
            parameter.data = parameter.data.bfloat16()
        hidden = spec.linear("attention_out").outputs
        shared = _shared(spec, batch, seq_len)
        leaf, positions = (
            torch.empty(batch, seq_len, hidden, dtype=torch.bfloat16, requires_grad=True),
            torch.arange(seq_len),
        )
        if recompute == "selective":
            apply_selective(block)
        with _Made(tracker, "Block") as made:
            out = _run(block, leaf, positions, shared, recompute)
            found = Counter(made.alive())
        found[""] -= out.untyped_storage().nbytes()
    return _by_place(found, mixture="router" in spec.names)


def _kept_of_images(layer: Layer, batch: int) -> Counter[str]:
    """Bytes that a residual block keeps of `batch` images in bf16; nothing of it is cheap to make again."""
    tracker = ModuleTracker()
    with FakeTensorMode(), tracker:
        block = ResidualBlock(Spec(layer.parts))
        for parameter in block.parameters():
            parameter.data = parameter.data.bfloat16()
        leaf = torch.empty(batch, *layer.takes, dtype=torch.bfloat16, requires_grad=True)
        with _Made(tracker, "ResidualBlock") as made:
            out = block(leaf * 1.0)
            return Counter(convolutions=made.alive().total() - out.untyped_storage().nbytes())


def _shared(spec: Spec, batch: int, seq_len: int) -> tuple[Tensor, Tensor] | None:
    """Keys and values of the layer before, for a layer that has none of its own; they count there."""
    core = spec.core()
    if "qkv" not in spec.names or spec.linear("qkv").outputs > core.heads * core.qk_dim:
        return None
    shape = (batch, seq_len, core.kv_heads, core.qk_dim)
    k, v = (torch.empty(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    return k, v


def _run(block: nn.Module, leaf: Tensor, positions: Tensor, shared: Any, recompute: str) -> Tensor:
    x = leaf * 1.0  # made here, so that nothing but the layer holds it
    if recompute == "full":
        return checkpoint(block, x, positions, shared, use_reentrant=False)  # type: ignore[no-any-return]
    return block(x, positions, shared)  # type: ignore[no-any-return]


def planned_bytes(layer: Layer, setting: Setting, degrees: Degrees) -> Counter[str]:
    """Bytes that the planner says the layer keeps of one micro-batch, by place, under the setting's recompute."""
    recompute = setting.choices.recompute
    if layer.takes:
        return Counter(convolutions=round(float(layer_activations(layer, setting, degrees, recompute))))
    if recompute == "full":
        return Counter({"stream": round(float(layer_activations(layer, setting, degrees, recompute)))})
    found: Counter[str] = Counter()
    names = [part.name for part in layer.parts]
    attention = names[: names.index("attention_residual")]
    for part in layer.parts:
        size = part_activations(part, setting, degrees, selective=recompute == "selective")
        found[_place(part, within_attention=part.name in attention, mixture="router" in names)] += round(float(size))
    return +found


def _place(part: Part, *, within_attention: bool, mixture: bool) -> str:
    """The place of what a part keeps."""
    if isinstance(part, Pointwise) and part.name in NORMS and part.name not in BEHIND:
        return "stream"
    if isinstance(part, Linear) and part.name in READ_NORMED:
        return "normed"
    if within_attention or isinstance(part, Core):
        return "attention"
    if part.name == "router_scores":
        return "router"
    if part.name.startswith("shared_"):
        return "shared"
    return "experts" if mixture else "dense"


def _by_place(made: Counter[str], *, mixture: bool) -> Counter[str]:
    """Bytes by the module that made them as bytes by place."""
    found: Counter[str] = Counter()
    for module, size in made.items():
        pieces = module.split(".")
        if not module:
            place = "stream"
        elif pieces[0] == "norms":
            place = "normed"
        elif pieces[0] == "attention":
            place = "attention"
        elif not mixture:
            place = "dense"
        else:
            inner = pieces[1] if len(pieces) > 1 else "experts"
            place = "shared" if inner.startswith("shared") else inner
        found[place] += size
    return +found
