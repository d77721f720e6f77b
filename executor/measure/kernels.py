"""Kernels of one device timed by shape and type: multiplies, attention, memory-bound work, memory, one launch.

Operands come from pools that no cache holds and results are kept, as in a training step: on a CPU core a multiply of
operands that lie in the cache, into the same result again, is 30 % faster than the same multiply in a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import torch
from torch import Tensor
from torch.nn import functional

from executor.measure.clock import Timing, time_call
from executor.measure.measurement import Measurement

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
COLD = {"cpu": 48 * 2**20, "cuda": 512 * 2**20}
"""Bytes of a pool: several times the caches of a core, or of a GPU."""


@dataclass(frozen=True)
class Sweep:
    """What is timed: (rows, columns, inner), (experts, rows, columns, inner), (batch, heads, seq_len, head_dim), bytes.

    `budget` [s] of each timing.
    """

    matmul: tuple[tuple[int, int, int], ...]
    grouped: tuple[tuple[int, int, int, int], ...]
    attention: tuple[tuple[int, int, int, int], ...]
    memory: tuple[int, ...]
    budget: float

    @property
    def size(self) -> int:
        """Steps of progress for one number type."""
        return len(self.matmul) + len(self.grouped) + len(self.attention) + len(self.memory) + 1


@dataclass(frozen=True)
class Bench:
    """Where it runs: `device` (cpu or cuda), its `name`, the time for each call."""

    device: str
    name: str
    budget: float

    def row(self, kind: str, dtype: str, call: Callable[[], Tensor], size: int, **sizes: float) -> Measurement:
        """Time `call` as a row; as in a step its results are kept, so each of `size` [B] goes to memory of its own."""
        kept: list[object] = [None] * self.copies(size)
        place = cycle(range(len(kept)))

        def keeping() -> None:
            kept[next(place)] = call()

        return as_row(kind, sizes, dtype, time_call(keeping, self.device, self.budget), self.name)

    def pool(self, *shape: int, dtype: str, grad: bool = False) -> Iterator[Tensor]:
        """Tensors of normal numbers in turn, so many that none is still in a cache when its turn comes."""
        size = math.prod(shape) * DTYPES[dtype].itemsize
        made = [
            torch.randn(*shape, device=self.device, dtype=DTYPES[dtype], requires_grad=grad)
            for _ in range(self.copies(size))
        ]
        return cycle(made)

    def copies(self, size: int) -> int:
        """How many tensors of `size` [B] exceed the caches."""
        return max(math.ceil(COLD[self.device] / size), 2)


def as_row(kind: str, sizes: dict[str, float], dtype: str, timing: Timing, name: str) -> Measurement:
    """A timing as a measurement of this program."""
    source = f"plan calibrate, torch {torch.__version__}"
    return Measurement(
        kind, sizes, dtype, timing.seconds, timing.clock, timing.spread, timing.repeats, name=name, source=source
    )


def kernels(sweep: Sweep, dtype: str, device: str, name: str) -> Iterator[Measurement]:
    """All rows of a sweep in one number type, one at a time (for progress)."""
    bench = Bench(device, name, sweep.budget)
    if device == "cpu":
        yield peak(bench, dtype)
    for shape in sweep.matmul:
        yield from matmul(bench, dtype, *shape)
    for group in sweep.grouped:
        yield from grouped(bench, dtype, *group)
    for heads in sweep.attention:
        yield from attention(bench, dtype, *heads)
    for size in sweep.memory:
        yield from memory(bench, dtype, size)
    yield launch(bench, dtype)


def peak(bench: Bench, dtype: str, size: int = 1024) -> Measurement:
    """A large multiply of the same operands over and over: it stands for the peak that a CPU's maker doesn't state."""
    x, weight = next(bench.pool(size, size, dtype=dtype)), next(bench.pool(size, size, dtype=dtype))
    out = torch.empty_like(x)
    timing = time_call(lambda: torch.mm(x, weight, out=out), bench.device, bench.budget)
    return as_row("peak", {"rows": size, "columns": size, "inner": size}, dtype, timing, bench.name)


def matmul(bench: Bench, dtype: str, rows: int, columns: int, inner: int) -> Iterator[Measurement]:
    """y = x Wᵀ, dx = dy W and dW = dyᵀ x, the three products of a linear layer: one law, three layouts."""
    x, weight, dy = (bench.pool(*s, dtype=dtype) for s in ((rows, inner), (columns, inner), (rows, columns)))
    for call, m, n, k in (
        (lambda: functional.linear(next(x), next(weight)), rows, columns, inner),
        (lambda: next(dy) @ next(weight), rows, inner, columns),
        (lambda: next(dy).t() @ next(x), columns, inner, rows),
    ):
        yield bench.row("matmul", dtype, call, m * n * DTYPES[dtype].itemsize, rows=m, columns=n, inner=k)


def grouped(bench: Bench, dtype: str, groups: int, rows: int, columns: int, inner: int) -> Iterator[Measurement]:
    """`groups` experts of `rows` tokens each, as one batched product: what the host adds for each is no kernel."""
    x, weight = bench.pool(groups, rows, inner, dtype=dtype), bench.pool(groups, inner, columns, dtype=dtype)
    sizes = {"groups": groups, "rows": rows, "columns": columns, "inner": inner}
    size = groups * rows * columns * DTYPES[dtype].itemsize
    yield bench.row("grouped_matmul", dtype, lambda: torch.bmm(next(x), next(weight)), size, **sizes)


def attention(bench: Bench, dtype: str, batch: int, heads: int, seq_len: int, head_dim: int) -> Iterator[Measurement]:
    """Causal attention, forward and backward apart."""
    shape = (batch, heads, seq_len, head_dim)
    q, k, v = (bench.pool(*shape, dtype=dtype, grad=True) for _ in range(3))
    sizes = dict(zip(("batch", "heads", "seq_len", "head_dim"), shape, strict=True))
    size = math.prod(shape) * DTYPES[dtype].itemsize

    def forward() -> Tensor:
        with torch.no_grad():
            return functional.scaled_dot_product_attention(next(q), next(k), next(v), is_causal=True)

    yield bench.row("attention", dtype, forward, size, **sizes)
    graphs = cycle([_graph(next(q), next(k), next(v)) for _ in range(bench.copies(8 * size))])

    def backward() -> Tensor:
        out, inputs, grad = next(graphs)
        return torch.autograd.grad(out, inputs, grad, retain_graph=True)[0]

    yield bench.row("attention_backward", dtype, backward, size, **sizes)


def _graph(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out, (q, k, v), torch.ones_like(out)


def memory(bench: Bench, dtype: str, size: int) -> Iterator[Measurement]:
    """A copy (bytes read and written) of `size` [B]; a norm's forward pass over the same bytes."""
    width = 256
    shape = (max(size // (2 * DTYPES[dtype].itemsize * width), 1), width)
    x = bench.pool(*shape, dtype=dtype)
    gain = torch.ones(width, device=bench.device, dtype=DTYPES[dtype])
    moved = 2 * math.prod(shape) * DTYPES[dtype].itemsize
    yield bench.row("copy", dtype, lambda: next(x).clone(), moved // 2, bytes=moved)
    norm = partial(functional.rms_norm, normalized_shape=(width,), weight=gain)
    yield bench.row("pointwise", dtype, lambda: norm(next(x)), moved // 2, bytes=moved)


def launch(bench: Bench, dtype: str) -> Measurement:
    """The host's cost of one operation: an addition to one number, queued without waiting."""
    x = torch.ones(1, device=bench.device, dtype=DTYPES[dtype])
    timing = time_call(lambda: x.add_(1.0), "cpu", bench.budget)
    if bench.device == "cuda":
        torch.cuda.synchronize()
    return as_row("launch", {}, dtype, timing, bench.name)
