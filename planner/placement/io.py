"""Routing traces from files: .npz, and Megatron-LM's JSONL of router choices or of tokens per expert."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import Fault, InputError
from planner.placement.base import Ints, Trace

SHOWN = 5  # faults of one sort that are listed
LARGEST = 2**31  # no expert, rank, layer or step has a larger number
MOST = 1e15  # tokens of an expert
LOAD_TOKENS = 200_000  # tokens that stand for a load snapshot


def read(path: Path, experts: int, gpus: int) -> Trace:
    """The trace in `path` for `experts` experts and sources 0 to `gpus` - 1; InputError with every fault by row."""
    if not path.is_file():
        raise InputError(Fault(str(path), "no such file; expected a routing trace (.npz or .jsonl)"))
    if path.suffix == ".npz":
        return _npz(path, experts, gpus)
    if path.suffix == ".jsonl":
        return _jsonl(path, experts, gpus)
    raise InputError(Fault(str(path), "expected a file that ends in .npz or .jsonl", path.suffix))


def _npz(path: Path, experts: int, gpus: int) -> Trace:
    try:
        with zipfile.ZipFile(path):  # numpy would also take a bare array or a pickle
            pass
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files if name in ("ids", "src", "seq", "layers")}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(Fault(str(path), f"is not a readable .npz file: {error}")) from None
    faults = [Fault(f"{path}: {name}", "is missing") for name in ("ids", "src") if name not in arrays]
    faults += [
        Fault(f"{path}: {name}", "expected integers", str(array.dtype))
        for name, array in arrays.items()
        if not np.issubdtype(array.dtype, np.integer)
    ]
    if faults:
        raise InputError(*faults)
    whole = {name: array.astype(np.int64) for name, array in arrays.items()}
    layers = tuple(int(x) for x in whole["layers"].ravel()) if "layers" in whole else ()
    return checked(whole["ids"], whole["src"], whole.get("seq"), layers, experts, gpus, str(path))


def checked(
    ids: Ints, src: Ints, seq: Ints | None, layers: tuple[int, ...], experts: int, gpus: int, where: str
) -> Trace:
    """The trace of these arrays (see `Trace`); InputError with every fault by row."""
    if ids.ndim == 2:
        ids = ids[None]
    shape = "expected [layers, tokens, topk], none of them 0"
    if ids.ndim != 3 or 0 in ids.shape:
        raise InputError(Fault(f"{where}: ids", shape, str(ids.shape)))
    faults = []
    for name, array in (("src", src), ("seq", seq)):
        if array is not None and array.shape != (ids.shape[1],):
            faults.append(
                Fault(f"{where}: {name}", f"expected one entry for each of {ids.shape[1]} tokens", str(array.shape))
            )
    if layers and (len(layers) != ids.shape[0] or len(set(layers)) != len(layers)):
        faults.append(
            Fault(f"{where}: layers", f"expected {ids.shape[0]} distinct numbers, one a layer", str(layers[:8]))
        )
    outside = np.asarray((ids < 0) | (ids >= experts))
    faults += _rows(f"{where}: ids", f"expected expert ids 0 to {experts - 1}", np.asarray(outside.any(axis=2)), ids)
    ordered = np.sort(ids, axis=2)
    twice = (ordered[:, :, 1:] == ordered[:, :, :-1]).any(axis=2)
    faults += _rows(f"{where}: ids", "expected distinct experts in a row", np.asarray(twice), ids)
    if src.shape == (ids.shape[1],):
        wrong = np.flatnonzero((src < 0) | (src >= gpus))
        faults += [
            Fault(f"{where}: src[{token}]", f"expected a source GPU 0 to {gpus - 1}", int(src[token]))
            for token in wrong[:SHOWN]
        ]
        if wrong.size > SHOWN:
            faults.append(Fault(f"{where}: src", f"{wrong.size - SHOWN} more tokens have a wrong source GPU"))
    if faults:
        raise InputError(*faults)
    if ids.shape[1] < 4 or (seq is not None and np.unique(seq).size < 2):
        raise InputError(
            Fault(f"{where}: ids", "expected at least 4 tokens, of 2 sequences: half are held out", ids.shape[1])
        )
    return Trace(ids, src, experts, seq, layers)


def _rows(where: str, expected: str, wrong: NDArray[np.bool_], ids: Ints) -> list[Fault]:
    """The first few rows [layers, tokens] that are wrong, and how many more there are."""
    places = np.argwhere(wrong)
    found = [
        Fault(f"{where}[{layer}, {token}]", expected, str(ids[layer, token].tolist()))
        for layer, token in places[:SHOWN]
    ]
    if len(places) > SHOWN:
        found.append(Fault(where, f"{len(places) - SHOWN} more rows of this sort"))
    return found


def _jsonl(path: Path, experts: int, gpus: int) -> Trace:
    rows: list[dict[str, Any]] = []
    faults = []
    seen: set[tuple[int, ...]] = set()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(Fault(str(path), f"is not UTF-8 text: byte {error.start}")) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row, where = _row(line), f"{path}: line {number}"
        if row is None:
            expected = "expected an object with layer and top_indices or tpe; layer, step, rank and iter whole numbers"
            faults.append(Fault(where, expected))
            continue
        place = tuple(row.get(key, 0) for key in ("layer", "step", "rank", "iter"))
        if "top_indices" in row and place in seen:
            faults.append(Fault(where, "repeats the layer, step and rank of an earlier line"))
        seen.add(place)
        rows.append(row)
    if faults:
        raise InputError(*faults[:SHOWN])
    if not rows:
        raise InputError(Fault(str(path), "has no rows"))
    if all("tpe" in row for row in rows):
        return _loads(rows, experts, gpus, str(path))
    return _router(rows, experts, gpus, str(path))


def _row(line: str) -> dict[str, Any] | None:
    """The object in a line, None when it is none of a trace."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(row, dict) or not ("top_indices" in row or "tpe" in row):
        return None
    numbers = [row.get("layer"), *(row.get(key, 0) for key in ("step", "rank", "iter"))]
    return row if all(type(number) is int and abs(number) <= LARGEST for number in numbers) else None


def _router(rows: list[dict[str, Any]], experts: int, gpus: int, where: str) -> Trace:
    """Megatron-LM's router trace: one row per step, rank and layer with the choices of its tokens."""
    layers = sorted({row["layer"] for row in rows})
    batches = sorted({(row.get("step", 0), row.get("rank", 0)) for row in rows})
    table = {(row["layer"], row.get("step", 0), row.get("rank", 0)): row.get("top_indices") for row in rows}
    ids, src, seq, faults = [], [], [], []
    for layer in layers:
        parts = []
        for number, batch in enumerate(batches):
            found = table.get((layer, *batch))
            part = _choices(found)
            if not part.size:
                place = f"{where}: layer {layer}, step {batch[0]}, rank {batch[1]}"
                faults.append(Fault(place, "expected top_indices [tokens, topk]", str(found)[:60]))
                continue
            parts.append(part)
            if layer == layers[0]:
                src.append(np.full(part.shape[0], batch[1]))
                seq.append(np.full(part.shape[0], number))
        ids.append(parts)
    if not faults and len({tuple(part.shape for part in parts) for parts in ids}) > 1:
        faults.append(Fault(where, "expected the same tokens and topk in every layer"))
    if faults:
        raise InputError(*faults[: 2 * SHOWN])
    stacked = np.stack([np.concatenate(parts) for parts in ids])
    groups = np.concatenate(seq) if len(batches) > 1 else None
    return checked(stacked, np.concatenate(src), groups, tuple(layers), experts, gpus, where)


def _choices(value: object) -> Ints:
    """`value` as [tokens, topk], empty when it is no such list of whole numbers."""
    rows = value if isinstance(value, list) else []
    width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
    even = all(isinstance(row, list) and len(row) == width for row in rows)
    if not even or any(type(e) is not int or abs(e) > LARGEST for row in rows for e in row):
        return np.zeros((0, 0), dtype=np.int64)
    return np.asarray(rows, dtype=np.int64)


def _loads(rows: list[dict[str, Any]], experts: int, gpus: int, where: str) -> Trace:
    """Tokens per expert: loads become tokens that visit one expert each, a snapshot a sequence."""
    layers = sorted({row["layer"] for row in rows})
    load: dict[int, dict[int, NDArray[np.float64]]] = {layer: {} for layer in layers}
    faults = []
    for row in rows:
        count = np.asarray(row["tpe"], dtype=float) if _numbers(row["tpe"]) else np.zeros(0)
        count = count.sum(axis=0) if count.ndim == 2 else count
        if count.shape != (experts,) or (count < 0).any() or not np.isfinite(count).all():
            faults.append(
                Fault(f"{where}: layer {row['layer']}, iter {row.get('iter')}", f"expected {experts} counts in tpe")
            )
            continue
        step = row.get("iter", 0)
        load[row["layer"]][step] = load[row["layer"]].get(step, np.zeros(experts)) + count
    steps = sorted({step for found in load.values() for step in found})
    if not faults and any(len(found) != len(steps) for found in load.values()):
        faults.append(Fault(where, "expected every layer in every iteration"))
    if not faults and any(count.sum() == 0 for found in load.values() for count in found.values()):
        faults.append(Fault(where, "has a layer without tokens"))
    if faults:
        raise InputError(*faults[:SHOWN])
    each = LOAD_TOKENS // len(steps)
    drawn = [np.concatenate([_tokens(load[layer][step], each) for step in steps]) for layer in layers]
    ids = np.stack(drawn)[:, :, None]
    seq = np.repeat(np.arange(len(steps)), each) if len(steps) > 1 else None
    return checked(ids, np.arange(ids.shape[1]) % gpus, seq, tuple(layers), experts, gpus, where)


def _numbers(value: object) -> bool:
    rows = value if isinstance(value, list) else []
    flat = [x for row in rows for x in (row if isinstance(row, list) else [row])]
    same = len({len(row) if isinstance(row, list) else -1 for row in rows}) == 1
    return same and bool(flat) and all(type(x) in (int, float) and abs(x) < MOST for x in flat)


def _tokens(load: NDArray[np.float64], tokens: int) -> Ints:
    """`tokens` expert ids in proportion to `load`, spread evenly."""
    point = (np.arange(tokens) + 0.5) / tokens * load.sum()
    ids = np.searchsorted(np.cumsum(load), point, side="right")
    return np.random.default_rng(0).permutation(np.minimum(ids, load.size - 1))
