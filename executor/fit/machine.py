"""From rows of measurements to the numbers of a calibration: which profile number each fit replaces, and its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from executor.fit import kernels, network
from executor.fit.solve import Fit
from executor.measure.measurement import COLLECTIVES, Measurement
from hwprofiles import calibration, schema
from hwprofiles.calibration import Calibration
from hwprofiles.document import Datum
from hwprofiles.spec import Cluster, Gpu
from planner.precision import PRECISIONS

Numbers = dict[str, Datum]
FASTEST = "measured: the fastest multiply, since the maker of a CPU states none"
FEWEST = {"matmul": 4, "grouped": 3, "attention": 3, "copy": 2, "collectives": 4}
"""Rows below which a law is not fitted."""


@dataclass(frozen=True)
class Hardware:
    """Measured numbers by dotted key, the residual of each fit, and what the rows say of the library.

    `scatter_by_reduce` is None when no collective was measured; `left_out` names what had too few rows.
    """

    numbers: Mapping[str, Datum]
    residuals: Mapping[str, float]
    scatter_by_reduce: bool | None
    left_out: tuple[str, ...]


def hardware(rows: Sequence[Measurement], cluster: Cluster, cores: int | None = None) -> Hardware:
    """Fit all that the rows allow, in the order in which one law needs another.

    `cores` is the number of ranks that run at once on a CPU; there, peak and bandwidth are measured too. InputError
    when no row fits anything.
    """
    book = _Book(cluster, {}, {}, [])
    on_cpu = cluster.gpu.generation == "cpu"
    if on_cpu and cores:
        book.put("node.gpus", cores, "cores of this machine")
        book.put("node.scale_up_domain", cores, "ranks that run at once")
        book.put("node.nics", cores, "a loopback flow for each rank")
    _memory(book, rows)
    for dtype in sorted({row.dtype for row in rows if row.kind == "matmul" and row.dtype in cluster.gpu.matmul}):
        _matmul(book, rows, dtype, measured_peak=on_cpu)
    _others(book, rows, _base(rows, cluster.gpu))
    scatter = _network(book, rows)
    return Hardware(book.numbers, book.residuals, scatter, tuple(book.left_out))


@dataclass
class _Book:
    """What is known so far: `cluster` has the numbers in place already, so that the next fit stands on them."""

    cluster: Cluster
    numbers: Numbers
    residuals: dict[str, float]
    left_out: list[str]

    def put(self, key: str, value: float, source: str) -> None:
        """Replace one number of the cluster."""
        kind = _kind(key)
        written = value if kind.dimension == "count" else float(f"{value:.6g}")
        text = f"{written:.6g} {kind.si_unit}" if kind.dimension in schema.UNITS else f"{written}"
        source = source if source.partition(":")[0] in schema.SOURCE_KINDS else f"measured: {source}"
        self.numbers[key] = Datum(written, kind.si_unit, text, source)
        whole = Calibration("now", "now", {}, {}, self.numbers)
        self.cluster = calibration.overlay(self.cluster, replace(whole, numbers={key: self.numbers[key]}))

    def fitted(self, name: str, fit: Fit, what: str, keys: Mapping[str, str]) -> None:
        """Replace what a fit found; `keys` maps its values to the profile's."""
        self.residuals[name] = round(fit.residual, 4)
        for value, key in keys.items():
            self.put(key, fit.values[value], fit.words(what))

    def enough(self, name: str, rows: Sequence[Measurement]) -> bool:
        """Whether a law can be fitted; notes it when only some rows are there."""
        fewest = FEWEST[name.split(".", maxsplit=1)[0]]
        if rows and len(rows) < fewest:
            self.left_out.append(f"{name}: {len(rows)} rows, at least {fewest} are needed")
        return len(rows) >= fewest


def _memory(book: _Book, rows: Sequence[Measurement]) -> None:
    copies = [row for row in rows if row.kind == "copy"]
    if not book.enough("copy", copies):
        return
    gpu = book.cluster.gpu
    fit = kernels.bandwidth(copies, gpu)
    book.residuals["copy"] = round(fit.residual, 4)
    achieved = fit.values["bandwidth"]
    if gpu.generation == "cpu":
        book.put("gpu.hbm_bandwidth", achieved, fit.words("copies"))
        book.put("gpu.hbm_efficiency", 1.0, "the bandwidth is the measured one")
    else:
        book.put("gpu.hbm_efficiency", min(achieved / gpu.hbm_bandwidth, 1.0), fit.words("copies"))


def _matmul(book: _Book, rows: Sequence[Measurement], dtype: str, *, measured_peak: bool) -> None:
    own = [row for row in rows if row.kind == "matmul" and row.dtype == dtype]
    if not book.enough(f"matmul.{dtype}", own):
        return
    if measured_peak:
        timed = (row for row in rows if row.kind in {"matmul", "peak"} and row.dtype == dtype)
        best = max(2.0 * row["rows"] * row["columns"] * row["inner"] / row.seconds for row in timed)
        book.put(f"gpu.peak.{PRECISIONS[dtype].peak}", best, FASTEST)
    fit = kernels.matmul(own, dtype, book.cluster.gpu)
    keys = {name: f"gpu.matmul.{dtype}.{name}" for name in fit.values}
    book.fitted(f"matmul.{dtype}", fit, f"{dtype} matrix multiplies", keys)


def _others(book: _Book, rows: Sequence[Measurement], dtype: str) -> None:
    groups = [row for row in rows if row.kind == "grouped_matmul" and row.dtype == dtype]
    if book.enough("grouped", groups):
        fit = kernels.grouped(groups, dtype, book.cluster.gpu)
        book.fitted("grouped", fit, "grouped multiplies", {name: f"gpu.grouped.{name}" for name in fit.values})
    cores = [row for row in rows if row.kind in {"attention", "attention_backward"} and row.dtype == dtype]
    if book.enough("attention", cores):
        fit = kernels.attention(cores, dtype, book.cluster.gpu)
        keys = {name: f"gpu.attention.{name}" for name in fit.values}
        if not any(row.kind == "attention_backward" for row in cores):
            del keys["backward_rate"]
        book.fitted("attention", fit, "attention products", keys)


def _network(book: _Book, rows: Sequence[Measurement]) -> bool | None:
    """Groups inside the scale-up domain first, then those beyond it."""
    measured = [row for row in rows if row.kind in COLLECTIVES]
    domain = book.cluster.node.scale_up_domain
    inside = [row for row in measured if row["ranks"] * row["stride"] <= domain]
    outside = [row for row in measured if row["ranks"] * row["stride"] > domain]
    scatter: bool | None = None
    if book.enough("collectives", inside):
        found = network.fit_node(inside, book.cluster.node, book.cluster.fabric)
        scatter = found.scatter_by_reduce
        keys = {name: f"node.scale_up_{name}" for name in ("bandwidth", "latency", "launch", "fill")}
        book.fitted("network.scale_up", found.fit, f"collectives of {_ranks(inside)} ranks", keys)
        book.put("node.scale_up_efficiency", 1.0, "the bandwidth is the measured one")
        if book.cluster.gpu.generation == "cpu":
            book.put("node.nic_bandwidth", found.fit.values["bandwidth"], "loopback has no other link")
    if book.cluster.fabric.kind != "single" and book.enough("collectives", outside):
        found = network.fit_fabric(outside, book.cluster.node, book.cluster.fabric)
        scatter = found.scatter_by_reduce if scatter is None else scatter
        keys = {name: f"fabric.{name}" for name in ("efficiency", "latency", "launch", "fill")}
        book.fitted("network.fabric", found.fit, f"collectives of {_ranks(outside)} ranks", keys)
    return scatter


def _ranks(rows: Iterable[Measurement]) -> str:
    return ", ".join(str(count) for count in sorted({int(row["ranks"]) for row in rows}))


def _base(rows: Sequence[Measurement], gpu: Gpu) -> str:
    """The type in which attention and experts were measured: the first the profile knows, bf16 when both were."""
    found = [row.dtype for row in rows if row.kind in {"attention", "grouped_matmul"} and row.dtype in gpu.matmul]
    return "fp32" if gpu.generation == "cpu" or (found and "bf16" not in found) else "bf16"


def _kind(key: str) -> schema.Number:
    """The schema's entry of a dotted key."""
    part, *path = key.split(".")
    field: schema.Field = schema.Table({"gpu": schema.GPU, "node": schema.NODE, "fabric": schema.FABRIC}[part])
    for step in path:
        if not isinstance(field, schema.Table):
            raise TypeError(f"{key} is no number of a profile")
        field = field.fields[step]
    if not isinstance(field, schema.Number):
        raise TypeError(f"{key} is no number of a profile")
    return field
