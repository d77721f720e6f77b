"""Numbers, names and strategies as people read them: three digits, a prefix, a unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hwprofiles import quantity

Json = Mapping[str, Any]

GIB: Final = quantity.BINARY["Gi"]
TERA: Final = quantity.DECIMAL["T"]
DAY: Final = quantity.SECONDS["d"]
HUNDRED: Final = 100  # from here on no decimals
MILLION: Final = 1_000_000  # below it counts are written out
MINUS: Final = "\N{MINUS SIGN}"

PARTS: Final = {
    "dense_ffn": "dense feed-forward", "shared_experts": "shared experts", "mtp": "multi-token prediction",
    "head": "output head", "parameters": "weights", "optimizer": "optimizer state",
    "communication": "communication buffers", "framework": "driver and framework", "workspace": "work in progress",
    "teacher": "teacher of the distillation",
}  # fmt: skip
TIMES: Final = {
    "tensor": "tensor-parallel exchange", "context": "context-parallel exchange", "expert": "expert all-to-all",
    "pipeline": "pipeline transfers", "bubble": "pipeline bubble", "data": "gradient and weight exchange",
    "optimizer": "optimizer step", "imbalance": "uneven stages", "host": "host work",
    "stragglers": "stragglers", "launch": "gaps between kernels", "teacher": "teacher of the distillation",
}  # fmt: skip
AXES: Final = {
    "world": "GPUs", "tp": "tensor parallel", "pp": "pipeline stages", "vpp": "chunks per stage",
    "cp": "context parallel", "ep": "expert parallel", "etp": "tensor parallel in experts", "dp": "data parallel",
    "edp": "data parallel of experts", "micro_batch": "sequences per micro-batch",
    "micro_batches": "micro-batches per step", "zero": "ZeRO stage", "recompute": "activation recompute",
    "schedule": "pipeline schedule", "sequence_parallel": "sequence parallel", "replicas": "replicas of sharded states",
    "order": "rank order, innermost first", "master": "master weights", "prune": "pruning",
    "quantize": "quantization", "messages": "messages", "distill_from": "distilled from",
    "teacher_topk": "logits of the teacher a token",
    "teacher_gpus": "GPUs of the teacher alone",
}  # fmt: skip


def scaled(value: float, unit: str) -> str:
    """A quantity with its SI prefix: 9.89e14, "FLOP/s" -> "989 TFLOP/s"."""
    return quantity.format(value, unit).replace("-", MINUS)


def flops_rate(value: float) -> str:
    """FLOP/s of one GPU, always in TFLOP/s so that peak and achieved compare at a glance: 1,200 TFLOP/s."""
    number = value / TERA
    return f"{number:,.{0 if abs(number) >= HUNDRED else 1}f} TFLOP/s".replace("-", MINUS)


def flops(value: float) -> str:
    """Work with its SI prefix: 13.3 TFLOP."""
    return scaled(value, "FLOP")


def memory(value: float) -> str:
    """Bytes as GPU memory is sold: in GiB, from a tebibyte on in TiB."""
    unit = "Ti" if abs(value) >= quantity.BINARY["Ti"] else "Gi"
    number = value / quantity.BINARY[unit]
    return f"{number:.{0 if abs(number) >= HUNDRED else 1}f} {unit}B".replace("-", MINUS)


def seconds(value: float) -> str:
    """A time span: 9.81 s, 3.2 h, and from two days on in days."""
    return days(value / DAY) if value >= 2 * DAY else scaled(value, "s")


def span(lower: float, upper: float) -> str:
    """Two time spans, the unit said once when it is the same: 1.06 to 1.24 s."""
    first, last = seconds(lower), seconds(upper)
    number, _, unit = first.partition(" ")
    return f"{number if last.endswith(f' {unit}') else first} to {last}"


def days(value: float) -> str:
    """Days with one decimal, whole from a hundred on: 41.3 days."""
    return f"{value:,.0f} days" if value >= HUNDRED else f"{value:.1f} days"


def count(value: float) -> str:
    """Parameters, tokens or candidates: 16,384 below a million, then 32.1M, 671B, 15.0T."""
    return f"{value:,.0f}" if abs(value) < MILLION else scaled(value, "")


def dollars(value: float) -> str:
    """USD: $3.2, $940k, $31.2M."""
    return scaled(value, "USD")


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal: 41.3 %."""
    return f"{round(100 * value, 1) + 0.0:.1f} %".replace("-", MINUS)


def change(value: float) -> str:
    """A relative change with its sign: +7.1 %."""
    told = percent(value)
    return f"+{told}" if value > 0 and told != percent(0.0) else told


def sentence_case(text: str) -> str:
    """The first letter raised, unless the first word is a symbol such as bf16; the rest left alone."""
    first = text.split(" ", 1)[0]
    return text if any(letter.isdigit() for letter in first) else text[:1].upper() + text[1:]


def name_of(key: str, names: Mapping[str, str]) -> str:
    """The reader's name of a field: from the table, else the key with spaces."""
    return names.get(key, key.replace("_", " "))


def strategy_line(strategy: Json) -> str:
    """A strategy on one line: "TP 8 · PP 16, 2 chunks · EP 64 · DP 128"; axes of degree 1 are left out."""
    shown = []
    for axis in ("tp", "pp", "cp", "ep", "etp", "dp"):
        degree = strategy.get(axis, 1)
        chunks = strategy.get("vpp", 1) if axis == "pp" else 1
        if degree > 1:
            shown.append(f"{axis.upper()} {degree:,}" + (f", {chunks} chunks" if chunks > 1 else ""))
    return " · ".join(shown) or "no parallel axis"


def setting(value: object) -> str:
    """A strategy's value in a table: yes/no, a grouped number, or the word itself."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
